"""Settings of the environment that the embedded stack would have to ignore: refused, because nobody expects that."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from pipeline.cli.stack.environment import absolute_url
from pipeline.cli.stack.ports import LOOPBACK
from pipeline.errors import ConfigurationError
from pipeline.settings import ENVIRONMENT_FILE, Settings

MADE_HERE = {
    "broker_url": "runs a broker of its own",
    "cache_url": "runs a cache of its own",
    "qdrant_url": "runs a Qdrant engine of its own",
    "qdrant_api_key": "makes that key itself",
    "qdrant_data_dir": "keeps points in its data directory",
    "snapshot_path": "keeps the snapshot in its data directory",
    "entry_hmac_key": "makes that key itself",
}
"""Settings that `forefill up` decides, and how."""


def require_consistent(given: Settings, kept: Mapping[str, str], folder: Path) -> None:
    """Refuse what contradicts the embedded stack; what says the same as the folder is welcome.

    Args:
        given: Settings of the environment and `.env` alone.
        kept: Variables of the folder's own file, empty for a new one.
        folder: The data directory.

    Raises:
        ConfigurationError: The message names the variable and the two ways out.
    """
    for name, reason in MADE_HERE.items():
        variable = f"FOREFILL_{name.upper()}"
        if name in given.model_fields_set and _text(getattr(given, name)) != kept.get(variable):
            raise ConfigurationError(
                f"{variable} is set, but `forefill up` {reason}: unset it (also in .env), or run "
                "`forefill api`, `worker`, `dispatcher` and `beat` on services of your own"
            )
    if "api_host" in given.model_fields_set and given.api_host not in (LOOPBACK, "localhost"):
        raise ConfigurationError(
            f"FOREFILL_API_HOST is {given.api_host}, but `forefill up` listens on {LOOPBACK} only: unset it, "
            "or run `forefill api` for other machines"
        )
    _require_same_database(given, kept, folder)


def _require_same_database(given: Settings, kept: Mapping[str, str], folder: Path) -> None:
    known = kept.get("FOREFILL_DATABASE_URL")
    if "database_url" in given.model_fields_set and known and absolute_url(given.database_url) != known:
        raise ConfigurationError(
            f"FOREFILL_DATABASE_URL names another database than {folder} was made with: choose another data directory, "
            f"or change it in {folder / ENVIRONMENT_FILE} too if the same database has moved"
        )


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
