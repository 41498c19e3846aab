"""Garbage: entries that nothing serves any more, and tombstones whose time is over.

    sweep     tombstones older than a day go; entries that no served passage names get an hour to live
    confirm   two minutes later (see `_confirm_after_s`) references are read again: whatever is named by then is kept

Nothing is ever dropped at once. A publication writes its entries before the manifest that names them; a sweep in
between sees them as garbage. No publication lasts as long as the pause between the two steps (a job is killed before),
so what it wrote is named when the references are read again. What is written later has no end, since a write clears it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from pipeline.database import Database
from pipeline.documents.corpora import get_corpus_by_pk
from pipeline.documents.manifest import unpack_spans
from pipeline.documents.tables import CorpusRow, CorpusSpecRow, ManifestRow
from pipeline.errors import NotFound
from pipeline.jobs.claims import ClaimedJob, finish, record_progress
from pipeline.jobs.range_runs import (
    GC_CONFIRM,
    RangeCounts,
    RangeOptions,
    count_slice,
    run_state,
    settle_ranges,
)
from pipeline.jobs.states import JobState, RunState
from pipeline.jobs.store import insert_range_job
from pipeline.jobs.tables import RunRow
from pipeline.retrieval.vector_index import VectorIndexWriter
from pipeline.services.event_jobs import JobLimits, WorkerResources
from pipeline.telemetry.logs import get_logger
from pipeline.token_cache import TokenWriter
from pipeline.tokenizers.tables import SpecRow

_log = get_logger(__name__)

TOMBSTONES_KEPT_S = 24 * 3600
"""Seconds a tombstone stays: longer than any late writer lives."""

EXPIRE_S = 3600
"""Seconds an entry lives that nothing names."""

_BATCH = 1000
_SLICE = 500


def run_gc_job(resources: WorkerResources, job: ClaimedJob, *, limits: JobLimits) -> str:
    """Run a gc run's sweep or its confirmation; both may be repeated.

    What it counts as documents are entries: `done` those that nothing names, `unchanged` the others.

    Raises:
        StaleFence: Somebody else owns the job, or its run was cancelled.
        Unavailable: A service did not answer.
    """
    assert job.run_id is not None  # noqa: S101  # a CHECK says so
    database, cache = resources.database, resources.cache
    with database.read() as connection:
        corpus = get_corpus_by_pk(connection, job.corpus_pk)
        options = RangeOptions.from_json(
            connection.execute(select(RunRow.options).where(RunRow.id == job.run_id)).scalar_one()
        )
        specs = _specs_of(connection, corpus.pk)
    if job.range_start == GC_CONFIRM:
        kept = sum(confirm_entries(database, cache, spec_id, fingerprint) for spec_id, fingerprint in specs)
        _log.info("gc.confirmed", run_id=job.run_id, entries=kept)
        return _end(database, job, RangeCounts(), confirm_after_s=None)
    if not options.dry_run:
        _purge_tombstones(resources.index, corpus.collection, now_ms=database.clock_ms())
    garbage = named = 0
    for spec_id, fingerprint in specs:
        with database.write() as connection:
            record_progress(connection, job)
        swept = sweep_entries(database, cache, spec_id, fingerprint, dry_run=options.dry_run)
        garbage, named = garbage + swept[0], named + swept[1]
    confirm_after_s = _confirm_after_s(limits) if garbage and not options.dry_run else None
    return _end(database, job, RangeCounts(done=garbage, unchanged=named), confirm_after_s=confirm_after_s)


def sweep_entries(
    database: Database, cache: TokenWriter, spec_id: str, fingerprint: str, *, dry_run: bool
) -> tuple[int, int]:
    """Give entries of a spec that nothing names an hour to live; return how many there are, and how many are named."""
    referenced = _references(database, spec_id)
    garbage = named = 0
    for keys in _batches(cache, fingerprint):
        unnamed = [key for key, is_named in zip(keys, _are_named(keys, referenced), strict=True) if not is_named]
        if unnamed and not dry_run:
            cache.expire(fingerprint, unnamed, ttl_s=EXPIRE_S)
        garbage, named = garbage + len(unnamed), named + len(keys) - len(unnamed)
    return garbage, named


def confirm_entries(database: Database, cache: TokenWriter, spec_id: str, fingerprint: str) -> int:
    """Keep every entry of a spec that is named now; return how many."""
    referenced = _references(database, spec_id)
    kept = 0
    for keys in _batches(cache, fingerprint):
        named = [key for key, is_named in zip(keys, _are_named(keys, referenced), strict=True) if is_named]
        kept += cache.keep(fingerprint, named)
    return kept


def _confirm_after_s(limits: JobLimits) -> float:
    """Return the pause between sweep and confirmation: twice what a job may take before it is killed, and some."""
    return 2 * limits.time_limit_s + 10


def _end(database: Database, job: ClaimedJob, counts: RangeCounts, *, confirm_after_s: float | None) -> str:
    """End a job; the sweep's transaction makes the confirmation, so that there is none without the other."""
    assert job.run_id is not None  # noqa: S101  # a CHECK says so
    with database.write() as connection:
        count_slice(connection, job, counts)
        finish(connection, job, state=JobState.SUCCEEDED)
        if confirm_after_s is not None and run_state(connection, job.run_id) is not RunState.CANCELLED:
            insert_range_job(
                connection,
                job.corpus_pk,
                run_id=job.run_id,
                kind=job.kind,
                start=GC_CONFIRM,
                end=GC_CONFIRM,
                delay_s=confirm_after_s,
            )
    settle_ranges(database)
    return JobState.SUCCEEDED.value


def _specs_of(connection: Connection, corpus_pk: int) -> list[tuple[str, str]]:
    """Return id and fingerprint of every spec a corpus is or was filled for."""
    statement = (
        select(SpecRow.id, SpecRow.fingerprint)
        .join(CorpusSpecRow, CorpusSpecRow.spec_id == SpecRow.id)
        .where(CorpusSpecRow.corpus_pk == corpus_pk)
        .order_by(SpecRow.id)
    )
    return [(spec_id, fingerprint) for spec_id, fingerprint in connection.execute(statement)]


def _purge_tombstones(index: VectorIndexWriter, collection: str, *, now_ms: int) -> None:
    try:
        index.purge_buried(collection, before_ms=now_ms - TOMBSTONES_KEPT_S * 1000)
    except NotFound:
        _log.info("gc.no_collection", collection=collection)  # nothing was ever published


def _references(database: Database, spec_id: str) -> NDArray[np.uint64]:
    """Return the passages that corpora filled for a spec serve, sorted: the first 8 bytes of each key.

    Two keys that agree in 8 bytes are taken for one another, which keeps garbage and loses nothing; 8 bytes a passage
    is what a sweep costs in memory.
    """
    parts = [np.array(keys, dtype=np.uint64) for keys in _served_prefixes(database, spec_id)]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint64)


def _served_prefixes(database: Database, spec_id: str) -> Iterator[list[int]]:
    filled = select(CorpusSpecRow.corpus_pk).where(CorpusSpecRow.spec_id == spec_id, CorpusSpecRow.status != "dropped")
    living = select(CorpusRow.pk).where(CorpusRow.dropped_at.is_(None))
    last = 0
    while True:
        statement = (
            select(ManifestRow.document_pk, ManifestRow.passages)
            .where(ManifestRow.corpus_pk.in_(filled), ManifestRow.corpus_pk.in_(living), ManifestRow.document_pk > last)
            .order_by(ManifestRow.document_pk)
            .limit(_SLICE)
        )
        with database.read() as connection:
            rows = connection.execute(statement).all()
        if not rows:
            return
        last = rows[-1].document_pk
        yield [_prefix(span.key) for row in rows for span in unpack_spans(row.passages)]


def _prefix(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")


def _are_named(keys: Sequence[bytes], referenced: NDArray[np.uint64]) -> list[bool]:
    asked = np.array([_prefix(key) for key in keys], dtype=np.uint64)
    named: list[bool] = np.isin(asked, referenced, assume_unique=False).tolist()
    return named


def _batches(cache: TokenWriter, fingerprint: str) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for name in cache.scan(fingerprint):
        batch.append(name.passage_key)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
