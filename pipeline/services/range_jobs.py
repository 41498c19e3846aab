"""Running a range job: slices of a corpus' served documents, recomputed, compared with what is stored, and written.

A slice ends with one fenced transaction that moves the job's cursor, its counts and the ledger together, so that a job
taken up again repeats at most one slice. Entries are written whether or not they seem to be there: what a query wrote
back would expire. Only documents whose head is served are touched; the others have event jobs of their own.

A job holds its worker for two seconds and then lets others have a turn, so that no change waits long for a night.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, insert, select

from pipeline.database import now_ms
from pipeline.documents.corpora import filled_specs, get_corpus_by_pk
from pipeline.documents.publication import LedgerEntry, LedgerWrite, store_ledger
from pipeline.documents.ranges import (
    ServedDocument,
    choose_slice,
    count_served,
    in_sample,
    load_ledger,
    load_served,
    lock_still_served,
    publish_anew,
    unfilled,
)
from pipeline.documents.tables import CorpusRow
from pipeline.errors import ForefillError, InvalidInput, NotFound, OutOfTime, Unavailable, error_sentence, is_failure
from pipeline.jobs.claims import ClaimedJob, finish, leave_breadcrumb, record_progress, yield_job
from pipeline.jobs.installation import cache_epoch_at
from pipeline.jobs.range_runs import (
    RangeCounts,
    RangeOptions,
    count_slice,
    plan_jobs,
    record_differences,
    run_state,
    settle_ranges,
)
from pipeline.jobs.states import JobState, RunState
from pipeline.jobs.store import request_event_jobs
from pipeline.jobs.tables import RangeRunRow, RunItemRow, RunRow
from pipeline.retrieval.points import point_ids
from pipeline.retrieval.vector_index import PointState
from pipeline.services.comparing import Recomputed, compare, recompute
from pipeline.services.event_jobs import JobLimits, WorkerResources
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

TURN_S = 2.0
"""Seconds after which a job with slices left gives its place to others."""
FINAL_ATTEMPTS = 5
"""Failed attempts in a row after which a range job is given up, and its run fails."""

_MORE_OF_A_RANGE = 4
"""Times as many documents as a slice of an event job has: nothing of them is embedded or placed."""
_MORE_OF_A_QUICK_RUN = 16
"""The same of a run that has nothing to compare."""
_QUICK_S = 0.25
"""A slice below that is followed by one of twice as many documents: each costs a dozen statements, however small."""
_MAX_SLICE_DOCUMENTS = 2048

_RUN = select(RunRow.id, RunRow.kind, RunRow.spec_id, RunRow.options, RunRow.upper_bound, RangeRunRow.expected).join(
    RangeRunRow, RangeRunRow.run_id == RunRow.id
)


class _EntriesDroppedError(ForefillError):
    """Entries that a slice has written may be gone again: they are to be written once more."""


@dataclass(slots=True)
class _Slice:
    """What became of the documents of one slice."""

    unchanged: int = 0
    superseded: int = 0
    recomputed: list[Recomputed] = field(default_factory=list)
    dead: dict[ServedDocument, tuple[str, str]] = field(default_factory=dict)
    """Stage and sentence."""


class RangeJobRunner:
    """Runs one claimed range job for one turn."""

    def __init__(self, resources: WorkerResources, job: ClaimedJob, *, limits: JobLimits | None = None) -> None:
        assert job.run_id is not None and job.range_end is not None  # noqa: S101, PT018  # a CHECK says so
        self._resources = resources
        self._database = resources.database
        self._job = job
        self._run_id = job.run_id
        self._end = job.range_end
        self._cursor = job.cursor or 0
        self._limits = limits or JobLimits()
        with self._database.read() as connection:
            run = connection.execute(_RUN.where(RunRow.id == self._run_id)).one()
            self._corpus = get_corpus_by_pk(connection, job.corpus_pk)
            self._spec_set_version = self._corpus.spec_set_version
            filled = filled_specs(connection, job.corpus_pk)
            self._epoch_at = cache_epoch_at(connection)
            chosen = [spec.spec_id for spec in filled if run.spec_id in (None, spec.spec_id)]
            if not chosen:
                raise InvalidInput(f"corpus {self._corpus.name!r} is not filled for spec {run.spec_id}", item="spec")
            self._kind: str = run.kind
            self._options = RangeOptions.from_json(run.options)
            self._conditions: list[ColumnElement[bool]] = []
            if self._is_quick:
                self._conditions.append(unfilled(chosen, since=self._epoch_at))
            if self._options.sample is not None:
                served = count_served(connection, job.corpus_pk, upto=run.upper_bound)
                modulus = max(1, served // max(1, run.expected))
                self._conditions.append(in_sample(modulus, seed=int(run.id[-4:], 16)))
        self._specs = [resources.load_spec(spec_id) for spec_id in chosen]
        more = _MORE_OF_A_QUICK_RUN if self._is_quick else _MORE_OF_A_RANGE
        self._slice_documents = self._limits.slice_documents * more
        # A quick run fills what is served as it is served; it is the full one that asks how it would be cut today.
        self._splitter = None if self._is_quick else resources.parse_splitter(self._corpus.splitter)

    def run(self) -> str:
        """Work until the range is done, the turn is over or the run is stopped; return the outcome.

        Raises:
            StaleFence: Somebody else owns the job now, or its run was cancelled.
            Unavailable: A service did not answer; finished slices stay finished.
        """
        self._bury_breadcrumb()
        deadline = time.monotonic() + TURN_S
        while self._cursor < self._end:
            if self._stopped() or time.monotonic() > deadline:
                with self._database.write() as connection:
                    yield_job(connection, self._job)
                return "yielded"
            began = time.monotonic()
            self._work_slice()
            if time.monotonic() - began < _QUICK_S:
                self._slice_documents = min(2 * self._slice_documents, _MAX_SLICE_DOCUMENTS)
        with self._database.write() as connection:
            finish(connection, self._job, state=JobState.SUCCEEDED)
        with self._database.write() as connection:
            plan_jobs(connection, self._run_id)
        settle_ranges(self._database)
        return JobState.SUCCEEDED.value

    def _stopped(self) -> bool:
        with self._database.read() as connection:
            return run_state(connection, self._run_id) is RunState.PAUSED

    def _work_slice(self) -> None:
        filled_from = self._database.clock_ms()
        documents, end, skipped = self._next_slice()
        if self._job.is_suspicious and documents:
            leave_breadcrumb(self._database, self._job, documents[0].pk)
        found = self._examine(documents)
        found.unchanged += skipped
        lost = self._find_lost_points(found.recomputed)
        differing = self._compare(found.recomputed, lost)
        if self._writes:
            self._fill(found.recomputed)
        moved = {each.document.pk for each in found.recomputed if each.cuts_moved} | set(lost)
        while True:
            try:
                self._store(found, differing, end=end, filled_from=filled_from, publish_anew=moved)
            except _EntriesDroppedError:
                self._fill(found.recomputed)
                differing = self._compare(found.recomputed, lost)  # the ledger may have been told, too
            else:
                return

    @property
    def _writes(self) -> bool:
        if self._kind == "verify":
            return self._options.repair
        return not self._options.dry_run

    @property
    def _is_quick(self) -> bool:
        return self._kind == "backfill" or self._options.only_changed

    def _next_slice(self) -> tuple[list[ServedDocument], int, int]:
        """Return the next documents to look at, the row they reach to, and how many were passed over on the way."""
        limit = 1 if self._job.is_suspicious else self._slice_documents
        with self._database.read() as connection:
            pks, more = choose_slice(
                connection,
                self._corpus.pk,
                after=self._cursor,
                upto=self._end,
                limit=limit,
                max_bytes=self._limits.slice_bytes,
                also=self._conditions,
            )
            end = pks[-1] if more else self._end
            skipped = 0
            if self._is_quick:
                skipped = count_served(connection, self._corpus.pk, after=self._cursor, upto=end) - len(pks)
            return load_served(connection, pks), end, skipped

    def _examine(self, documents: Sequence[ServedDocument]) -> _Slice:
        """Recompute every document whose head is served."""
        found = _Slice()
        heads = []
        for document in documents:
            if document.is_head:
                heads.append(document)
            elif document.state == "dead":
                found.dead[document] = ("worker", document.last_error or "the newest change of it is dead")
            else:
                found.superseded += 1
        self._recompute(heads, found)
        return found

    def _recompute(self, documents: Sequence[ServedDocument], found: _Slice) -> None:
        """Recompute all together, or each alone if one of them fails: one document must not cost the others."""
        try:
            found.recomputed += recompute(documents, specs=self._specs, splitter=self._splitter)
        except Unavailable:
            raise
        except BaseException as error:
            if not is_failure(error) or (isinstance(error, OutOfTime) and len(documents) > 1):
                raise
            if len(documents) > 1:
                for document in documents:
                    self._recompute([document], found)
                return
            (document,) = documents
            _log.warning("document.failed", run_id=self._run_id, document_pk=document.pk, error=type(error).__name__)
            found.dead[document] = ("tokenize", error_sentence(error))

    def _find_lost_points(self, recomputed: Sequence[Recomputed]) -> dict[int, int]:
        """Return how many passages search cannot find as they should be, by document row; only `verify` looks."""
        if self._kind != "verify":
            return {}
        collection = self._corpus.collection
        wanted = {
            each.document.pk: point_ids(collection, document_id=each.document.id, passage_keys=each.keys)
            for each in recomputed
        }
        states = self._states(collection, [point for points in wanted.values() for point in points])
        lost = {}
        for each in recomputed:
            alive = [states.get(point) for point in wanted[each.document.pk]]
            generation = each.document.served_generation
            missing = sum(state is None or state.buried or state.generation != generation for state in alive)
            if missing:
                lost[each.document.pk] = missing
        return lost

    def _states(self, collection: str, points: Sequence[str]) -> dict[str, PointState]:
        try:
            return self._resources.index.states(collection, points)
        except NotFound:
            return {}  # the collection is gone, and with it every point

    def _compare(self, recomputed: Sequence[Recomputed], lost: Mapping[int, int]) -> dict[int, str]:
        """Return in a sentence by document row what differs from what is stored; a quick run has nothing to compare."""
        if self._is_quick:
            return {}
        differences: dict[int, list[str]] = {}
        with self._database.read() as connection:
            ledger = load_ledger(connection, [each.document.pk for each in recomputed])
        for spec in self._specs:
            keys = [key for each in recomputed for key in each.keys]
            stored = iter(self._resources.cache.read(spec.fingerprint, keys))
            for each in recomputed:
                entries = [next(stored) for _ in each.keys]
                known = ledger.get(each.document.pk, {}).get(spec.spec_id)
                sentences = compare(each, spec.spec_id, entries, ledger=known, epoch_at=self._epoch_at)
                differences.setdefault(each.document.pk, []).extend(sentences)
        for each in recomputed:
            if each.cuts_moved:
                differences.setdefault(each.document.pk, []).append("the text is cut into other passages now")
        for pk, count in lost.items():
            differences.setdefault(pk, []).append(f"{count} points are missing, buried or of another generation")
        return {pk: "; ".join(sentences) for pk, sentences in differences.items() if sentences}

    def _fill(self, recomputed: Sequence[Recomputed]) -> None:
        for together in dict.fromkeys(each.together for each in recomputed):
            for spec in self._specs:
                self._resources.cache.write(spec.fingerprint, together.entries(spec.spec_id))

    def _store(
        self,
        found: _Slice,
        differing: Mapping[int, str],
        *,
        end: int,
        filled_from: int,
        publish_anew: Collection[int] = (),
    ) -> None:
        documents = {each.document.pk: each.document for each in found.recomputed}
        with self._database.write() as connection:
            record_progress(connection, self._job, cursor=end)
            if self._writes:
                self._check_entries(connection)
            held = lock_still_served(connection, list(documents.values()))
            kept = [each for each in found.recomputed if each.document.pk in held]
            changed = [each for each in kept if self._is_quick or each.document.pk in differing]
            if self._writes:
                self._store_ledger(connection, changed, filled_from=filled_from)
                self._publish_anew(connection, [each.document for each in changed if each.document.pk in publish_anew])
            notes = {pk: (documents[pk].served_generation, differing[pk]) for pk in differing if pk in held}
            record_differences(connection, self._run_id, notes)
            self._store_dead(connection, found.dead)
            counts = RangeCounts(
                done=len(changed),
                unchanged=found.unchanged + len(kept) - len(changed),
                superseded=found.superseded + len(found.recomputed) - len(kept),
                dead=len(found.dead),
                tokens=sum(each.token_count(self._specs[0].spec_id) for each in kept),
            )
            count_slice(connection, self._job, counts)
        self._cursor = end

    def _check_entries(self, connection: Connection) -> None:
        """Go back if entries of the corpus were dropped since this slice's were written (see `dropped_entries`)."""
        version = select(CorpusRow.spec_set_version).where(CorpusRow.pk == self._corpus.pk).with_for_update(read=True)
        known, self._spec_set_version = self._spec_set_version, connection.execute(version).scalar_one()
        if known != self._spec_set_version:
            raise _EntriesDroppedError("entries were dropped while a slice was written")

    def _store_ledger(self, connection: Connection, changed: Sequence[Recomputed], *, filled_from: int) -> None:
        writes = [
            LedgerWrite(
                each.document.pk,
                each.document.served_generation,
                LedgerEntry(spec.spec_id, each.token_counts(spec.spec_id)),
            )
            for each in changed
            for spec in self._specs
        ]
        store_ledger(connection, self._corpus.pk, writes, filled_from=filled_from)

    def _publish_anew(self, connection: Connection, documents: Sequence[ServedDocument]) -> None:
        if documents:
            publish_anew(connection, [document.pk for document in documents])
            buckets = {document.bucket for document in documents}
            request_event_jobs(connection, self._corpus.pk, queue="bulk", buckets=buckets)

    def _store_dead(self, connection: Connection, dead: Mapping[ServedDocument, tuple[str, str]]) -> None:
        now = connection.execute(select(now_ms())).scalar_one()
        for document, (stage, error) in dead.items():
            connection.execute(
                insert(RunItemRow).values(
                    run_id=self._run_id,
                    document_pk=document.pk,
                    generation=document.served_generation,
                    outcome="dead",
                    tokens=0,
                    stage=stage,
                    error=error,
                    attempts=1,
                    updated_at=now,
                )
            )

    def _bury_breadcrumb(self) -> None:
        """Pass over a document that killed worker after worker, and say so."""
        pk = self._job.breadcrumb
        if pk is None or self._job.deliveries <= self._limits.max_deaths:
            return
        with self._database.read() as connection:
            documents = load_served(connection, [pk])
        found = _Slice()
        for document in documents:
            found.dead[document] = ("worker", f"the worker died {self._job.deliveries - 1} times at this document")
        self._store(found, {}, end=pk, filled_from=0)
