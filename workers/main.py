"""What `celery -A workers.main` loads: the application with its task and its process hooks."""

import sys

from pipeline.loading import collector_at_rest

with collector_at_rest():
    from celery.signals import (
        setup_logging,
        worker_init,
        worker_process_init,
        worker_process_shutdown,
        worker_ready,
        worker_shutdown,
        worker_shutting_down,
    )

    from pipeline.settings import load_settings_or_exit
    from pipeline.telemetry.logs import start_logging
    from workers.app import create_app
    from workers.lifecycle import ChildProcess, MainProcess
    from workers.tasks import register

_settings = load_settings_or_exit("worker")
app = create_app(_settings)
_child = ChildProcess(_settings)
_main = MainProcess(_settings)
register(app, _child)


@setup_logging.connect  # type: ignore[untyped-decorator]  # Celery publishes no types
def _log_as_json(**_signal: object) -> None:
    process = next((word for word in sys.argv[1:] if word in ("worker", "beat", "flower")), "celery")
    start_logging(process, level=_settings.log_level)


worker_process_init.connect(_child.open, weak=False)
worker_process_shutdown.connect(_child.close, weak=False)
worker_init.connect(_main.prepare, weak=False)
worker_ready.connect(_main.open, weak=False)
worker_shutting_down.connect(_main.retire, weak=False)  # a soft shutdown ends without the signal below
worker_shutdown.connect(_main.close, weak=False)
