"""The API as a process: `python -m api`."""

import signal
import sys

import uvicorn

from api.app import create_app
from api.hosts import is_loopback_address
from pipeline.database import Database
from pipeline.documents.access import list_keys
from pipeline.errors import ConfigurationError, ForefillError, Unavailable
from pipeline.factory import open_database, require_schema
from pipeline.settings import Settings, load_settings
from pipeline.telemetry.logs import configure_logging, get_logger

_log = get_logger(__name__)

_GRACE_S = 3
_BACKLOG = 2048


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        ConfigurationError: Others reach the address and there is no API key, or the database is not upgraded.
    """
    database = open_database(settings, durable=False, pool_size=1)
    try:
        check_start(settings.api_host, database)
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


def check_start(host: str, database: Database) -> None:
    """Refuse to begin what cannot end well. Without an answer of SQL it begins, and lets in who its copy knows.

    Args:
        host: Address to listen on.
        database: Says which keys there are.

    Raises:
        ConfigurationError: The database is not upgraded, or others reach the address and there is no API key.
    """
    try:
        require_schema(database)
        with database.read() as connection:
            has_keys = bool(list_keys(connection, revoked=False))
    except Unavailable as error:
        _log.warning("api.starts_without_database", error=str(error))
        return
    check_host(host, has_keys=has_keys)


def check_host(host: str, *, has_keys: bool) -> None:
    """Refuse addresses that others can reach while there is no key.

    Raises:
        ConfigurationError: The host is not on loopback, and there is no active API key.
    """
    if not has_keys and not is_loopback_address(host):
        raise ConfigurationError(
            f"{host or 'an empty FOREFILL_API_HOST'} is not a loopback address, and without API keys the API serves "
            "this machine only: make a key with `forefill keys add`"
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
