"""Telling SQL which entries are dropped on purpose: every document of every corpus that serves one of their passages.

    open     a *clearing* is noted in SQL, and its corpora's documents stop being believed        before the first entry
    drop     entries go; the note is renewed every few seconds
    bump     publications in flight learn that they must write their entries again (`spec_set_version`)
    look     documents published meanwhile are found by the passages they serve, and not believed   after the last entry
    close    debts are recorded and the note goes, in one transaction

A process that dies in between leaves its note. The dispatcher that leads finds it silent for half a minute, stops
believing whatever the note names and has it filled again. A process that was only suspended finds its note gone, and
records what it did once more. So no entry that we drop is believed for longer than that.
"""

import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, select, update

from pipeline.database import Database, among, now_ms
from pipeline.documents.corpus_specs import refill_in_flight
from pipeline.documents.manifest import RECORD_BYTES
from pipeline.documents.tables import CorpusRow, CorpusSpecRow, LedgerRow, ManifestRow
from pipeline.errors import Unavailable
from pipeline.jobs.installation import set_fact
from pipeline.jobs.tables import InstallationRow
from pipeline.services.refilling import NEVER, Debt, disbelieve, owe
from pipeline.telemetry.logs import get_logger
from pipeline.tokenizers.tables import SpecRow

_log = get_logger(__name__)

_CLEARING = "clearing:"
"""Facts of this prefix are clearings that go on: JSON of their corpora and when they were last heard of."""
_RENEW_S = 5.0
_ABANDONED_MS = 30_000
_SLICE = 500

KeyPrefixes = NDArray[np.uint64]
"""The first eight bytes of passage keys, sorted, each once. Keys that agree in them are taken for one another: then a
document is called uncovered that is not, and never the other way round."""


@dataclass(slots=True)
class Clearing:
    """One clearing that goes on."""

    database: Database
    corpus_pks: list[int]
    """Corpora that are filled for a spec whose entries are dropped."""
    name: str = field(default_factory=lambda: secrets.token_hex(16))
    touched: set[int] = field(default_factory=set)
    """Of these, the ones of which a document was found to lose an entry."""

    def note(self, connection: Connection) -> None:
        """Write down that it goes on."""
        now = connection.execute(select(now_ms())).scalar_one()
        set_fact(connection, f"{_CLEARING}{self.name}", orjson.dumps([self.corpus_pks, now]).decode())

    def close(self, connection: Connection) -> None:
        """Write down that it has ended; what it did must be recorded by then, or in this transaction."""
        connection.execute(delete(InstallationRow).where(InstallationRow.key == f"{_CLEARING}{self.name}"))

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the note while entries are dropped; where it is gone it is written anew."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(_RENEW_S):
                try:
                    with self.database.write() as connection:
                        self.note(connection)
                except Unavailable as error:
                    _log.warning("clearing.not_renewed", error=str(error))

        thread = threading.Thread(target=renew, name="clearing", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def end_abandoned_clearings(database: Database) -> int:
    """Record what clearings may have dropped whose process died, and have it filled again; return how many there were.

    Raises:
        Unavailable: The database did not answer.
    """
    with database.read() as connection:
        noted = select(InstallationRow.key, InstallationRow.value).where(InstallationRow.key.startswith(_CLEARING))
        now = connection.execute(select(now_ms())).scalar_one()
        found = [(key, *orjson.loads(value)) for key, value in connection.execute(noted)]
    abandoned = [(key, corpus_pks) for key, corpus_pks, seen_at in found if now - seen_at > _ABANDONED_MS]
    for key, corpus_pks in abandoned:
        with database.write() as connection:
            refill_in_flight(connection, corpus_pks)
            kept = _kept(connection, corpus_pks)
            owe(connection, kept, Debt(since=0, before=connection.execute(select(now_ms())).scalar_one(), refill=True))
            connection.execute(delete(InstallationRow).where(InstallationRow.key == key))
        _log.warning("clearing.abandoned", corpora=len(kept))
    return len(abandoned)


def sharing(connection: Connection, fingerprints: Iterable[str]) -> list[int]:
    """Return the corpora that are filled for specs of these fingerprints."""
    statement = (
        select(CorpusSpecRow.corpus_pk)
        .join(SpecRow, SpecRow.id == CorpusSpecRow.spec_id)
        .join(CorpusRow, CorpusRow.pk == CorpusSpecRow.corpus_pk)
        .where(SpecRow.fingerprint.in_(list(fingerprints)), CorpusSpecRow.status != "dropped")
        .where(CorpusRow.dropped_at.is_(None))
        .order_by(CorpusSpecRow.corpus_pk)
    )
    return list(connection.execute(statement.distinct()).scalars())


def record_dropped(clearing: Clearing, dropped: Mapping[str, KeyPrefixes], *, but: int | None = None) -> None:
    """Stop believing the ledger of documents that serve a passage whose entry is dropped, a few hundred at a time.

    Args:
        clearing: Remembers the corpora in which there were any.
        dropped: Which entries, by fingerprint.
        but: A corpus of which nothing is believed anyway.
    """
    with clearing.database.read() as connection:
        specs = select(SpecRow.fingerprint, SpecRow.id).where(SpecRow.fingerprint.in_(list(dropped)))
        ids: dict[str, str] = {row.fingerprint: row.id for row in connection.execute(specs)}
    for corpus_pk in clearing.corpus_pks:
        if corpus_pk != but and _record_in(
            clearing.database, corpus_pk, {ids[f]: keys for f, keys in dropped.items() if f in ids}
        ):
            clearing.touched.add(corpus_pk)


def bump(clearing: Clearing) -> None:
    """Have whoever is about to record entries that were written before this write them again first."""
    with clearing.database.write() as connection:
        refill_in_flight(connection, clearing.corpus_pks)


def prefixes_of(keys: Iterable[bytes]) -> KeyPrefixes:
    """Return the prefixes of passage keys."""
    return np.unique(np.fromiter((int.from_bytes(key[:8], "little") for key in keys), dtype=np.uint64))


def packed_prefixes(passages: bytes) -> KeyPrefixes:
    """Return the prefixes of the keys of packed passages, in order."""
    return np.frombuffer(passages, dtype="<u8").reshape(-1, RECORD_BYTES // 8)[:, 0]


def _record_in(database: Database, corpus_pk: int, dropped: Mapping[str, KeyPrefixes]) -> bool:
    """Record what one corpus loses, by spec id; return whether it loses anything."""
    loses = False
    for rows in manifest_slices(database, corpus_pk):
        for spec_id, keys in dropped.items():
            losing = [pk for pk, passages in rows if np.isin(packed_prefixes(passages), keys).any()]
            if not losing:
                continue
            loses = True
            with database.write() as connection:
                chosen = (LedgerRow.spec_id == spec_id, among(LedgerRow.document_pk, losing))
                connection.execute(update(LedgerRow).where(*chosen).values(written_at=NEVER))
    return loses


def manifest_slices(database: Database, corpus_pk: int) -> Iterator[list[tuple[int, bytes]]]:
    """Yield document rows with their packed passages, a few hundred at a time, in constant memory."""
    last = 0
    while True:
        statement = (
            select(ManifestRow.document_pk, ManifestRow.passages)
            .where(ManifestRow.corpus_pk == corpus_pk, ManifestRow.document_pk > last)
            .order_by(ManifestRow.document_pk)
            .limit(_SLICE)
        )
        with database.read() as connection:
            rows = [(pk, passages) for pk, passages in connection.execute(statement)]
        if not rows:
            return
        last = rows[-1][0]
        yield rows


def _kept(connection: Connection, corpus_pks: list[int]) -> list[int]:
    kept = select(CorpusRow.pk).where(CorpusRow.pk.in_(corpus_pks), CorpusRow.dropped_at.is_(None))
    return list(connection.execute(kept.order_by(CorpusRow.pk)).scalars())


def disbelieve_all(connection: Connection, corpus_pk: int) -> None:
    """Stop believing a corpus' whole ledger."""
    now = connection.execute(select(now_ms())).scalar_one()
    disbelieve(connection, corpus_pk, Debt(since=0, before=now + 1, refill=False))
