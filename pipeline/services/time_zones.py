"""Time zones by name, with the rules of the package `tzdata`: the same on every host.

A host's own files are another version on each host, and hold names that mean something else on each (`localtime`,
`posixrules`) or nothing (`Factory`), and copies that count leap seconds (`right/…`).
"""

from functools import cache, lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from pipeline.documents.validation import shown
from pipeline.errors import InvalidInput

_NO_ZONE = frozenset({"Factory"})
"""On the package's list; it says that nobody has set a zone."""
_LOADED = 256


def load_zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        InvalidInput: No zone has that name on every host.
    """
    if name not in zone_names():
        raise InvalidInput(f"time zone {shown(name)} is not one of the IANA database's names", item="timezone")
    return _read(name)


@cache
def zone_names() -> frozenset[str]:
    """Return the names of all zones."""
    return frozenset((files("tzdata") / "zones").read_text(encoding="utf-8").split()) - _NO_ZONE


@lru_cache(_LOADED)
def _read(name: str) -> ZoneInfo:
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)
