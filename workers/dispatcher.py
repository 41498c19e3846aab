"""The dispatcher as a process: `python -m workers.dispatcher`."""

from pipeline.ending import end_at_once

if __name__ == "__main__":
    end_at_once()

import signal  # whatever is loaded, even this, after the line above
import threading

from pipeline.loading import collector_at_rest

with collector_at_rest():
    from pipeline.settings import load_settings_or_exit
    from pipeline.telemetry.logs import start_logging
    from workers.dispatching import run


def main() -> None:
    """Run until SIGTERM or Ctrl-C."""
    settings = load_settings_or_exit("dispatcher")
    start_logging("dispatcher", level=settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    run(settings, stop)


if __name__ == "__main__":
    main()
