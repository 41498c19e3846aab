"""What must hold before an API process begins."""

from api.hosts import is_loopback_address
from pipeline.database import Database
from pipeline.documents.access import list_keys
from pipeline.errors import ConfigurationError, Unavailable, operator_sentence
from pipeline.factory import open_database, open_engine_client
from pipeline.retrieval.embedders import embedder_name
from pipeline.services.schema import require_newest
from pipeline.settings import Settings
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)


def require_startable(settings: Settings) -> None:
    """Build what settings name and might not suffice for, and open the database for `check_start`.

    Raises:
        ConfigurationError: A setting of the engine or the embedder is missing, the database is not upgraded, or others
            reach the address and there is no API key.
    """
    open_engine_client(settings)  # connects to nothing, and is not kept
    embedder_name(settings)
    database = open_database(settings, durable=False, pool_size=1)
    try:
        check_start(settings.api_host, database)
    finally:
        database.close()


def check_start(host: str, database: Database) -> None:
    """Refuse to begin what cannot end well. Without an answer of SQL it begins, and lets in who its copy knows.

    Args:
        host: Address to listen on.
        database: Says which keys there are.

    Raises:
        ConfigurationError: The database is not upgraded, or others reach the address and there is no API key.
    """
    try:
        require_newest(database)
        with database.read() as connection:
            has_keys = bool(list_keys(connection, revoked=False))
    except Unavailable as error:
        _log.warning("api.starts_without_database", error=operator_sentence(error))
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
