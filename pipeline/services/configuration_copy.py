"""The copy of the configuration that a process keeps on disk for a start without SQL.

It says who may ask, so it is its owner's alone: written with mode 0600 and then renamed, and not believed when somebody
else could have written it. What cannot be read is no copy, and then nobody is let in before SQL answers.
"""

import os
import stat
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from pipeline.documents.access import AccessScope, ApiKey
from pipeline.services.configuration import Access, Configuration, CorpusView, SpecCaching
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_FORMAT = 3


class ConfigurationCopy:
    """One file, or nothing at all."""

    def __init__(self, path: Path | None) -> None:
        """Remember where.

        Args:
            path: The file; None for nowhere.
        """
        self._path = path

    def write(self, configuration: Configuration) -> bool:
        """Replace the copy; return whether it says this now. A disk that refuses is logged, no more."""
        if self._path is None:
            return True
        try:
            handle, draft = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")  # mode 0600
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_encode(configuration))
                    file.flush()
                    os.fsync(handle)
                Path(draft).replace(self._path)
            except OSError:
                Path(draft).unlink(missing_ok=True)
                raise
        except OSError as error:
            _log.warning("configuration.copy_not_written", path=str(self._path), error=str(error))
            return False
        return True

    def read(self) -> Configuration | None:
        """Return what was written last, None if there is nothing to believe."""
        if self._path is None:
            return None
        try:
            data = _read_private(self._path)
            configuration = _decode(orjson.loads(data))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("configuration.copy_not_read", path=str(self._path), error=str(error))
            return None
        _log.warning("configuration.from_copy", corpora=len(configuration.corpora))
        return configuration


def _read_private(path: Path) -> bytes:
    """Read a file that nobody else can have written or read.

    Raises:
        PermissionError: Its owner or mode is another.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError("it must be a file of mode 0600 owned by this user")
        return file.read()


def _encode(configuration: Configuration) -> bytes:
    return orjson.dumps(
        {
            "format": _FORMAT,
            "corpora": [asdict(view) for view in configuration.corpora.values()],
            "keys_required": configuration.access.required,
            "keys": [_key_object(key) for key in configuration.access.keys.values()],
        }
    )


def _decode(data: Any) -> Configuration:
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ValueError("it has another format")
    views = [_view(fields) for fields in data["corpora"]]
    keys = [_key(fields) for fields in data["keys"]]
    required = data["keys_required"] is not False
    return Configuration({view.name: view for view in views}, Access({key.id: key for key in keys}, required=required))


def _view(fields: dict[str, Any]) -> CorpusView:
    return CorpusView(**fields | {"caching": tuple(SpecCaching(**each) for each in fields["caching"])})


def _key_object(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "secret_hash": key.secret_hash.hex(),
        "scopes": sorted(key.scopes),
        "corpora": None if key.corpora is None else sorted(key.corpora),
        "created_at": key.created_at,
    }


def _key(fields: dict[str, Any]) -> ApiKey:
    corpora = fields["corpora"]
    return ApiKey(
        id=fields["id"],
        name=fields["name"],
        secret_hash=bytes.fromhex(fields["secret_hash"]),
        scopes=frozenset(AccessScope(scope) for scope in fields["scopes"]),
        corpora=None if corpora is None else frozenset(corpora),
        created_at=fields["created_at"],
        revoked_at=None,
    )
