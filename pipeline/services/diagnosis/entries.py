"""Checks of the cache's entries: are they signed with the key that this deployment has, and does everybody have it."""

import contextlib
from collections.abc import Iterator
from itertools import groupby, islice
from operator import attrgetter

from pipeline.database import Database
from pipeline.errors import ConfigurationError, Unavailable
from pipeline.services.diagnosis.findings import Finding
from pipeline.services.key_mismatches import list_key_mismatches
from pipeline.settings import Settings
from pipeline.token_cache import MissReason, RedisTokenWriter, TokenWriter

SAMPLED_ENTRIES = 2_000
"""Entries that are read, the first ones that the server names."""

_KEY = "entry key"
_TIMEOUT_S = 2.0


def check(settings: Settings, database: Database) -> Iterator[Finding]:
    """Yield whether entries fit this process' entry key, and which processes have another one."""
    secret = settings.entry_hmac_key
    hmac_key = None if secret is None else secret.get_secret_value().encode()
    try:
        cache = RedisTokenWriter.connect(settings.cache_url, hmac_key=hmac_key, timeout_s=_TIMEOUT_S)
    except (ValueError, ConfigurationError):
        return  # said already
    with contextlib.closing(cache):
        try:
            yield from check_entries(cache)
        except Unavailable:
            return  # said already
    with database.read() as connection:
        refused = list_key_mismatches(connection)
    for each in refused:
        yield Finding.fail(
            _KEY,
            f"process {each.process} was refused: {each.reason}",
            remedy="give it the FOREFILL_ENTRY_HMAC_KEY that all others have, and start it again",
        )


def check_entries(cache: TokenWriter) -> Iterator[Finding]:
    """Yield whether the cache's mark fits, and whether a sample of its entries does."""
    mismatch = cache.key_mismatch()
    if mismatch is not None:
        yield Finding.fail(
            _KEY,
            mismatch,
            remedy="give every process the same FOREFILL_ENTRY_HMAC_KEY; if it was changed on purpose, "
            "run `forefill cache clear --new-key` with the new one",
        )
        return  # every entry would be called damaged
    names = sorted(islice(cache.scan(), SAMPLED_ENTRIES), key=attrgetter("fingerprint"))
    found = [
        entry
        for fingerprint, some in groupby(names, key=attrgetter("fingerprint"))
        for entry in cache.read(fingerprint, [name.passage_key for name in some])
    ]
    corrupt = sum(entry is MissReason.CORRUPT for entry in found)
    if corrupt:
        yield Finding.fail(
            _KEY,
            f"{corrupt:,} of {len(found):,} sampled entries are damaged or signed otherwise: queries tokenize them",
            remedy="run `forefill verify --repair` for each corpus",
        )
    else:
        yield Finding.ok(_KEY, f"fits the cache; {len(found):,} sampled entries are sound")
