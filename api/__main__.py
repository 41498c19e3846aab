"""The API as a process: `python -m api`."""

import signal
import sys

import uvicorn

from api.app import create_app
from api.guards import is_loopback
from pipeline.errors import ConfigurationError, ForefillError
from pipeline.factory import open_database, require_schema
from pipeline.settings import Settings, load_settings
from pipeline.telemetry.logs import configure_logging

_GRACE_S = 3
_BACKLOG = 2048


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        ConfigurationError: The address is not on loopback, or the database is not upgraded.
        Unavailable: The database did not answer.
    """
    check_host(settings.api_host)
    database = open_database(settings, durable=False, pool_size=1)
    try:
        require_schema(database)
    finally:
        database.close()
    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        log_config=None,  # structured logs are configured already
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a forwarded address must not decide what is local
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_S,
    )


def check_host(host: str) -> None:
    """Refuse addresses that others can reach.

    Raises:
        ConfigurationError: The host is not on loopback.
    """
    if not is_loopback(f"[{host}]" if ":" in host else host):
        raise ConfigurationError(
            f"FOREFILL_API_HOST={host} is not a loopback address: without API keys the API serves this machine only"
        )


def main() -> int:
    """Run the process; return its exit code."""
    # uvicorn raises the signal that stopped it again, once it has stopped: by then there is nothing left to end.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        run(settings)
    except ForefillError as error:
        print(f"forefill api: {error}", file=sys.stderr)  # noqa: T201  # a command's own message
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
