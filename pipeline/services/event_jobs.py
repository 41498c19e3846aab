"""Running an event job: slices of a bucket's documents that are behind, published one after the other.

A job that dies is taken up again; what it published stays published. After a death it goes document by document and
leaves a breadcrumb before each, so that a document which kills its worker is named, put off, and in the end given up,
while the others of its group are served.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from pipeline.database import Database, is_blameless, now_ms
from pipeline.documents.corpora import filled_specs, get_corpus_by_pk
from pipeline.documents.publication import (
    DocumentFailure,
    DocumentWork,
    PublishedDocument,
    find_behind,
    load_work,
    next_due_at,
    record_intents,
    store_failures,
    store_published,
)
from pipeline.documents.splitting import Splitter
from pipeline.documents.tables import CorpusRow
from pipeline.errors import ConfigurationError, NotFound, StaleFence, Unavailable, error_sentence, is_failure
from pipeline.jobs.claims import ClaimedJob, check_fence, finish, leave_breadcrumb, record_progress
from pipeline.jobs.retry import backoff_s
from pipeline.jobs.runs import bury_items, finish_items, settle
from pipeline.jobs.states import JobState
from pipeline.jobs.store import request_event_jobs
from pipeline.retrieval.embedding import PassageEmbedder
from pipeline.retrieval.vector_index import VectorIndexWriter
from pipeline.services.publishing import Publisher, SpecSetChangedError
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import get_logger
from pipeline.token_cache import TokenWriter
from pipeline.tokenizers import TokenSpec

_log = get_logger(__name__)

DOCUMENTS_PER_JOB: Mapping[str, int] = {"interactive": 64, "bulk": 512}
"""Documents one job publishes at most; more left means one more job."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds of one job."""

    slice_documents: int = 64
    """Documents published by one pair of transactions."""
    slice_bytes: int = 4 * 1024 * 1024
    """UTF-8 bytes of text in one slice."""
    time_limit_s: float = 60.0
    """Seconds after which the process of a job is killed."""
    max_attempts: int = 3
    """Failed attempts after which a document is dead."""
    max_deaths: int = 5
    """Worker deaths with the same document in hand after which it is dead."""

    @property
    def time_budget_s(self) -> float:
        """Seconds after which no further slice is begun."""
        return self.time_limit_s / 3

    @property
    def stop_after_s(self) -> float:
        """Seconds after which a job is interrupted; what is left to the limit is for giving it back."""
        return self.time_limit_s * 5 / 6


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """What a worker process holds for its life."""

    database: Database
    cache: TokenWriter
    index: VectorIndexWriter
    embedder: PassageEmbedder
    load_spec: Callable[[str], TokenSpec]
    parse_splitter: Callable[[str], Splitter]
    """From a corpus' splitter identity."""


class EventJobRunner:
    """Runs one claimed event job to its end."""

    def __init__(self, resources: WorkerResources, job: ClaimedJob, *, limits: JobLimits | None = None) -> None:
        self._resources = resources
        self._database = resources.database
        self._job = job
        self._limits = limits or JobLimits()
        with self._database.read() as connection:
            self._corpus = get_corpus_by_pk(connection, job.corpus_pk)
            self._specs = self._load_specs(connection)
        self._dead = 0
        self._filled_from = 0

    def run(self) -> str:
        """Publish everything due, then end the job; return the outcome.

        Raises:
            StaleFence: Somebody else owns the job now; nothing more may be done.
            Unavailable: A service did not answer; what is published stays published.
        """
        self._run_slices()
        state = JobState.PARTIAL if self._dead else JobState.SUCCEEDED
        with self._database.write() as connection:
            finish(connection, self._job, state=state)
            self._request_rest(connection)
        return state.value

    def _run_slices(self) -> None:
        self._blame_breadcrumb()
        self._resources.index.ensure_collection(self._corpus.collection, dimension=self._resources.embedder.dimension)
        publisher = self._publisher()
        deadline = time.monotonic() + self._limits.time_budget_s
        left = DOCUMENTS_PER_JOB[self._job.queue]
        while left > 0 and time.monotonic() < deadline:
            works = self._next_slice(left)
            if not works:
                return
            self._publish_slice(publisher, works)
            left -= len(works)

    def _next_slice(self, left: int) -> list[DocumentWork]:
        limit = 1 if self._job.is_suspicious else min(left, self._limits.slice_documents)
        assert self._job.bucket is not None  # noqa: S101  # a CHECK says so for event jobs
        with self._database.read() as connection:
            pks = find_behind(
                connection,
                self._corpus.pk,
                bucket=self._job.bucket,
                queue=self._job.queue,
                limit=limit,
                max_bytes=self._limits.slice_bytes,
            )
            return load_work(connection, pks)

    def _publish_slice(self, publisher: Publisher, works: Sequence[DocumentWork]) -> None:
        if self._job.is_suspicious or works[0].attempts:
            leave_breadcrumb(self._database, self._job, works[0].pk)
        try:
            prepared, failures = publisher.prepare(works)
            self._store_failures(failures)
            publisher.publish(prepared)
        except (StaleFence, Unavailable, NotFound, ConfigurationError):
            raise  # no document is to blame
        except BaseException as error:
            if len(works) > 1 or is_blameless(error) or not is_failure(error):
                raise
            _log.exception("document.failed", job_id=self._job.pk, document_pk=works[0].pk, error=type(error).__name__)
            self._store_failures([DocumentFailure(works[0], "publish", error_sentence(error), final=False)])

    def record_intents(self, points: Mapping[DocumentWork, Sequence[str]]) -> set[int]:
        """Step 1 of a publication: fenced by the job and by each document's head."""
        with self._database.write() as connection:
            check_fence(connection, self._job)
            self._filled_from = int(connection.execute(select(now_ms())).scalar_one())
            return record_intents(connection, points)

    def settle(self, published: Sequence[PublishedDocument]) -> None:
        """Step 5 of a publication: fenced by the job and by each document's head."""
        with self._database.write() as connection:
            record_progress(connection, self._job)
            self._check_spec_set(connection)
            held = store_published(connection, self._corpus.pk, published, filled_from=self._filled_from)
            active = self._specs[0].spec_id
            tokens = {
                document.work.pk: sum(sum(entry.token_counts) for entry in document.ledger if entry.spec_id == active)
                for document in published
                if document.work.pk in held
            }
            runs = finish_items(connection, tokens)
        settle(self._database, runs)
        self._observe(published, held)

    def _check_spec_set(self, connection: Connection) -> None:
        """Hold the corpus' set of specs still until this transaction ends, and go back if it has changed."""
        statement = select(CorpusRow.spec_set_version).where(CorpusRow.pk == self._corpus.pk).with_for_update(read=True)
        if connection.execute(statement).scalar_one() != self._corpus.spec_set_version:
            self._corpus = get_corpus_by_pk(connection, self._corpus.pk)
            self._specs = self._load_specs(connection)
            raise SpecSetChangedError(self._specs)

    def _observe(self, published: Sequence[PublishedDocument], held: set[int]) -> None:
        now = self._database.clock_ms()
        for document in published:
            if document.work.pk in held:
                metrics.FILL_LAG.observe(max(0, now - document.work.accepted_at) / 1000)

    def _store_failures(self, failures: Sequence[DocumentFailure]) -> None:
        if not failures:
            return
        delays = {f.work.pk: round(backoff_s(f.work.attempts + 1) * 1000) for f in failures}
        self._give_up_or_put_off(failures, max_attempts=self._limits.max_attempts, delays_ms=delays)

    def _blame_breadcrumb(self) -> None:
        """Count an earlier holder's death against the document it was at, before that is touched again."""
        pk = self._job.breadcrumb
        if pk is None:
            return
        with self._database.read() as connection:
            works = load_work(connection, [pk])
        for work in works:
            error = f"the worker died {work.attempts + 1} times while publishing this document"
            delay = {work.pk: round(backoff_s(work.attempts + 1) * 1000)}
            failure = DocumentFailure(work, "worker", error, final=False)
            self._give_up_or_put_off([failure], max_attempts=self._limits.max_deaths, delays_ms=delay)

    def _give_up_or_put_off(
        self, failures: Sequence[DocumentFailure], *, max_attempts: int, delays_ms: Mapping[int, int]
    ) -> None:
        runs: set[str] = set()
        with self._database.write() as connection:
            record_progress(connection, self._job)
            dead = store_failures(connection, failures, max_attempts=max_attempts, delays_ms=delays_ms)
            for failure in failures:
                if failure.work.pk in dead:
                    attempts = failure.work.attempts + 1
                    runs |= bury_items(
                        connection, failure.work.pk, stage=failure.stage, error=failure.error, attempts=attempts
                    )
        settle(self._database, runs)
        self._dead += len(dead)

    def _request_rest(self, connection: Connection) -> None:
        """Leave a job for what is still behind: put off, over the limit, or changed meanwhile."""
        assert self._job.bucket is not None  # noqa: S101  # a CHECK says so for event jobs
        bucket, queue = self._job.bucket, self._job.queue
        due_at = next_due_at(connection, self._corpus.pk, bucket=bucket, queue=queue)
        if due_at is not None:
            delay_ms = max(0, due_at - connection.execute(select(now_ms())).scalar_one())
            request_event_jobs(connection, self._corpus.pk, queue=queue, buckets=[bucket], delay_ms=delay_ms)

    def _load_specs(self, connection: Connection) -> list[TokenSpec]:
        return [self._resources.load_spec(spec.spec_id) for spec in filled_specs(connection, self._corpus.pk)]

    def _publisher(self) -> Publisher:
        return Publisher(
            collection=self._corpus.collection,
            specs=self._specs,
            splitter=self._resources.parse_splitter(self._corpus.splitter),
            embedder=self._resources.embedder,
            cache=self._resources.cache,
            index=self._resources.index,
            ledger=self,
        )
