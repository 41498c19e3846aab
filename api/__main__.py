"""The API as a process: `python -m api`. Serves by itself, or keeps several processes that do."""

from pipeline.ending import end_at_once

if __name__ == "__main__":
    end_at_once()

import sys  # whatever is loaded, even this, after the line above

from pipeline.loading import collector_at_rest

with collector_at_rest():
    from api.starting import require_startable
    from pipeline.errors import ForefillError
    from pipeline.settings import Settings, load_settings
    from pipeline.telemetry.logs import start_logging


def run(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code.

    Raises:
        ConfigurationError: Others reach the address and there is no API key, the database is not upgraded, or several
            processes cannot have the port.
    """
    require_startable(settings)
    if settings.api_processes > 1:
        from api.processes import serve_with_several  # noqa: PLC0415  # each of the two needs what the other does not

        return serve_with_several(settings)
    with collector_at_rest():
        from api.serving import serve  # noqa: PLC0415  # the same

    return serve(settings)


def main() -> int:
    """Run the process; return its exit code."""
    try:
        settings = load_settings()
        start_logging("api", level=settings.log_level)
        return run(settings)
    except ForefillError as error:
        print(f"forefill api: {error}", file=sys.stderr)  # noqa: T201  # a command's own message
        return 1


if __name__ == "__main__":
    sys.exit(main())
