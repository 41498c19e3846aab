"""Runs over all documents of a corpus: planned in ranges, counted by their jobs, paused, resumed and cancelled.

A run's upper bound is fixed when it begins; documents that come later are not in it. Jobs are made a few at a time, so
that neither planning nor pausing depends on the size of the corpus. What a job has counted moves in one transaction
with its cursor; when a run ends its jobs' counts are summed and the jobs go.

Locks are taken in this order: `range_runs`, `jobs`, `runs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, update
from uuid_utils import uuid7

from pipeline.database import Database, insert_missing, now_ms, rows_affected
from pipeline.documents.ranges import count_served, find_range_end, last_row
from pipeline.errors import Conflict
from pipeline.jobs.claims import JOBS, ClaimedJob
from pipeline.jobs.states import RUN_TRANSITIONS, JobState, RunState, sources
from pipeline.jobs.store import insert_range_job
from pipeline.jobs.tables import RangeCountRow, RangeRunRow, RunDifferenceRow, RunRow

RANGE_KINDS = ("retokenize", "backfill", "verify", "gc")
"""Kinds of runs that have ranges."""

DOCUMENTS_PER_RANGE = 512
"""Served documents of one range job."""

QUICK_DOCUMENTS_PER_RANGE = 8192
"""Of one that reads only the ledger of most of them."""

_FEWEST_OF_A_BACKFILL = 1024
"""Of a backfill, which reads them all: towards its end ranges get shorter, so that workers end together."""

OPEN_JOBS = 8
"""Unfinished jobs a run has at most: enough for every worker, few enough to pause at once."""

GC_SWEEP, GC_CONFIRM = 0, 1
"""A gc run has no ranges but two jobs, told apart by where their range starts."""

COUNTS = ("done", "unchanged", "superseded", "dead", "tokens")
"""What a range job counts: documents by outcome, and tokens."""

_RUNS = RunRow.metadata.tables["runs"]
_RANGES = RangeRunRow.metadata.tables["range_runs"]
_RANGE_COUNTS = RangeCountRow.metadata.tables["range_counts"]
_OPEN = (RunState.PENDING.value, RunState.RUNNING.value)


@dataclass(frozen=True, slots=True)
class RangeOptions:
    """What a run over a corpus was asked to do."""

    only_changed: bool = False
    """Retokenize: believe the ledger, and read only documents it does not know to be filled."""
    dry_run: bool = False
    """Write nothing; count and report what would be written."""
    sample: int | None = None
    """Verify: about this many documents instead of all."""
    repair: bool = False
    """Verify: write what is missing or differs."""

    def to_json(self) -> str:
        """Write the options that are not the defaults, in a fixed order."""
        chosen = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name)}
        return orjson.dumps(chosen, option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_json(cls, text: str) -> "RangeOptions":
        """Read what `to_json` wrote."""
        return cls(**orjson.loads(text))


@dataclass(frozen=True, slots=True)
class Nominal:
    """The time that a schedule meant: there is one run for it, whoever asks and how often."""

    schedule_pk: int
    at: int
    """Milliseconds since 1970-01-01 UTC."""


@dataclass(frozen=True, slots=True)
class RangeCounts:
    """What one slice of a range job comes to."""

    done: int = 0
    unchanged: int = 0
    superseded: int = 0
    dead: int = 0
    tokens: int = 0


def open_range_run(
    connection: Connection,
    corpus_pk: int,
    *,
    kind: str,
    spec_id: str | None,
    options: RangeOptions,
    nominal: Nominal | None = None,
) -> str | None:
    """Create a run over what a corpus serves now, with its first jobs; return its id.

    Args:
        connection: An open writing unit that holds the corpus' row against others who start runs.
        corpus_pk: The corpus.
        kind: One of `RANGE_KINDS`.
        spec_id: The one spec it is for; None for all that are filled.
        options: What to do.
        nominal: The time a schedule meant. Two who evaluate it race here: a unique constraint lets one of them through.

    Returns:
        The run's id; None if the run for that nominal time exists.
    """
    run_id = str(uuid7())
    upper = 0 if kind == "gc" else last_row(connection, corpus_pk)
    row = {
        "id": run_id,
        "kind": kind,
        "corpus_pk": corpus_pk,
        "spec_id": spec_id,
        "state": RunState.PENDING.value,
        "sealed": True,
        "options": options.to_json(),
        "upper_bound": upper,
        "schedule_pk": nominal.schedule_pk if nominal else None,
        "nominal_at": nominal.at if nominal else None,
        "created_at": connection.execute(select(now_ms())).scalar_one(),
    }
    if not insert_missing(connection, _RUNS, [row], returning=["id"]):
        return None
    expected = count_served(connection, corpus_pk, upto=upper)
    if options.sample is not None:
        expected = min(expected, options.sample)
    zeros = dict.fromkeys(COUNTS, 0)
    connection.execute(insert(_RANGES).values(run_id=run_id, expected=expected, planned_to=0, paused_ms=0, **zeros))
    if kind == "gc":
        insert_range_job(connection, corpus_pk, run_id=run_id, kind=kind, start=GC_SWEEP, end=GC_SWEEP)
    plan_jobs(connection, run_id)
    return run_id


def find_unfinished_like(
    connection: Connection, corpus_pk: int, *, kind: str, spec_id: str | None, options: RangeOptions
) -> str | None:
    """Return the id of a run that was asked to do the same and has not ended; None if there is none."""
    statement = (
        select(_RUNS.c.id)
        .where(
            _RUNS.c.corpus_pk == corpus_pk,
            _RUNS.c.kind == kind,
            _RUNS.c.spec_id.is_not_distinct_from(spec_id),
            _RUNS.c.options == options.to_json(),
            _RUNS.c.finished_at.is_(None),
        )
        .order_by(_RUNS.c.id)
        .limit(1)
    )
    return connection.execute(statement).scalar_one_or_none()


def has_unfinished_of_schedule(connection: Connection, schedule_pk: int) -> bool:
    """Return whether a run of a schedule has not ended."""
    statement = select(_RUNS.c.id).where(_RUNS.c.schedule_pk == schedule_pk, _RUNS.c.finished_at.is_(None)).limit(1)
    return connection.execute(statement).first() is not None


def plan_jobs(connection: Connection, run_id: str) -> int:
    """Make the next jobs of a run, up to `OPEN_JOBS` unfinished ones; return how many.

    Workers that finish jobs and the dispatcher race here: the run's row is locked while its ranges are handed out.
    """
    statement = (
        select(_RUNS.c.corpus_pk, _RUNS.c.kind, _RUNS.c.options, _RUNS.c.upper_bound, _RANGES.c.planned_to)
        .join(_RANGES, _RANGES.c.run_id == _RUNS.c.id)
        .where(_RUNS.c.id == run_id, _RUNS.c.state.in_(_OPEN), _RANGES.c.planned_to < _RUNS.c.upper_bound)
        .with_for_update(of=_RANGES)
    )
    run = connection.execute(statement).first()
    if run is None:
        return 0
    options = RangeOptions.from_json(run.options)
    unfinished = select(func.count()).where(JOBS.c.run_id == run_id, JOBS.c.finished_at.is_(None))
    room = OPEN_JOBS - int(connection.execute(unfinished).scalar_one())
    start, made = run.planned_to, 0
    while made < room and start < run.upper_bound:
        documents = _documents_per_range(run.kind, options, rows_left=run.upper_bound - start)
        end = find_range_end(connection, run.corpus_pk, after=start, upto=run.upper_bound, documents=documents)
        insert_range_job(connection, run.corpus_pk, run_id=run_id, kind=run.kind, start=start, end=end)
        start, made = end, made + 1
    connection.execute(update(_RANGES).where(_RANGES.c.run_id == run_id).values(planned_to=start))
    return made


def _documents_per_range(kind: str, options: RangeOptions, *, rows_left: int) -> int:
    if kind == "backfill":
        return min(QUICK_DOCUMENTS_PER_RANGE, max(_FEWEST_OF_A_BACKFILL, rows_left // 4))
    return QUICK_DOCUMENTS_PER_RANGE if options.only_changed else DOCUMENTS_PER_RANGE


def plan_all(database: Database) -> int:
    """Make the next jobs of every run that has room for some; return how many."""
    unplanned = (
        select(_RUNS.c.id)
        .join(_RANGES, _RANGES.c.run_id == _RUNS.c.id)
        .where(_RUNS.c.state.in_(_OPEN), _RANGES.c.planned_to < _RUNS.c.upper_bound)
    )
    with database.read() as connection:
        run_ids = list(connection.execute(unplanned).scalars())
    made = 0
    for run_id in run_ids:
        with database.write() as connection:
            made += plan_jobs(connection, run_id)
    return made


def run_state(connection: Connection, run_id: str) -> RunState:
    """Return a run's state as it is now; `cancelled` if it is gone with its corpus."""
    found = connection.execute(select(_RUNS.c.state).where(_RUNS.c.id == run_id)).scalar_one_or_none()
    return RunState.CANCELLED if found is None else RunState(found)


def count_slice(connection: Connection, job: ClaimedJob, counts: RangeCounts) -> None:
    """Add what a slice came to, in the transaction that moves the job's cursor; the first slice starts the run."""
    values = {name: getattr(counts, name) for name in COUNTS}
    zeros = {"job_pk": job.pk, **dict.fromkeys(COUNTS, 0)}
    insert_missing(connection, _RANGE_COUNTS, [zeros], returning=["job_pk"])
    moved = {name: _RANGE_COUNTS.c[name] + value for name, value in values.items()}
    connection.execute(update(_RANGE_COUNTS).where(_RANGE_COUNTS.c.job_pk == job.pk).values(moved))
    started = {"state": RunState.RUNNING.value, "started_at": func.coalesce(_RUNS.c.started_at, now_ms())}
    pending = (_RUNS.c.id == job.run_id, _RUNS.c.state == RunState.PENDING.value)
    connection.execute(update(_RUNS).where(*pending).values(started))


def record_differences(connection: Connection, run_id: str, found: Mapping[int, tuple[int, str]]) -> None:
    """Note what differed, by document row: its generation and a sentence. A repeated slice finds its notes there."""
    now = connection.execute(select(now_ms())).scalar_one()
    rows = [
        {
            "run_id": run_id,
            "document_pk": pk,
            "generation": generation,
            "difference": difference,
            "found_at": now,
        }
        for pk, (generation, difference) in found.items()
    ]
    insert_missing(connection, RunDifferenceRow.metadata.tables["run_differences"], rows, returning=["document_pk"])


def pause_run(connection: Connection, run_id: str, kind: str) -> None:
    """Stop a run for now: workers notice within a slice. Pausing a paused one changes nothing.

    Raises:
        Conflict: It has ended, or its kind cannot be paused.
    """
    _require_range_kind(kind, "paused")
    if run_state(connection, run_id) is RunState.PAUSED:
        return
    connection.execute(update(_RANGES).where(_RANGES.c.run_id == run_id).values(paused_at=now_ms()))
    _move(connection, run_id, RunState.PAUSED)


def resume_run(connection: Connection, run_id: str, kind: str) -> None:
    """Let a paused run go on; one that was not paused goes on anyway.

    Raises:
        Conflict: It has ended, or its kind cannot be paused.
    """
    _require_range_kind(kind, "paused or resumed")
    if run_state(connection, run_id) in _OPEN:
        return
    passed = _RANGES.c.paused_ms + now_ms() - func.coalesce(_RANGES.c.paused_at, now_ms())
    connection.execute(update(_RANGES).where(_RANGES.c.run_id == run_id).values(paused_ms=passed, paused_at=None))
    started = connection.execute(select(_RUNS.c.started_at).where(_RUNS.c.id == run_id)).scalar_one_or_none()
    _move(connection, run_id, RunState.PENDING if started is None else RunState.RUNNING)
    plan_jobs(connection, run_id)


def cancel_run(connection: Connection, run_id: str, kind: str) -> None:
    """End a run for good. Its jobs go at once: a worker that holds one finds its fence refused.

    What the run has written stays: entries are never wrong. Cancelling a cancelled one changes nothing.

    Raises:
        Conflict: It has ended otherwise, or accepted writes would be lost.
    """
    _require_range_kind(kind, "cancelled")
    if run_state(connection, run_id) is RunState.CANCELLED:
        return
    _fold_jobs(connection, run_id)
    _move(connection, run_id, RunState.CANCELLED)


def settle_ranges(database: Database) -> int:
    """End runs whose ranges are all worked through; return how many.

    Workers that finish the last two jobs see each other's as running and neither ends the run: so this runs after
    their commits, and again in every tick of the dispatcher.
    """
    finished = select(_RUNS.c.id).join(_RANGES, _RANGES.c.run_id == _RUNS.c.id).where(*_finished())
    with database.read() as connection:
        run_ids = list(connection.execute(finished).scalars())
    ended = 0
    for run_id in run_ids:
        with database.write() as connection:
            ended += _settle(connection, run_id)
    return ended


def _finished() -> tuple[ColumnElement[bool], ...]:
    unfinished = exists().where(JOBS.c.run_id == _RUNS.c.id, JOBS.c.finished_at.is_(None))
    return (_RUNS.c.state.in_(_OPEN), _RANGES.c.planned_to >= _RUNS.c.upper_bound, ~unfinished)


def _settle(connection: Connection, run_id: str) -> int:
    held = select(_RANGES.c.run_id).where(_RANGES.c.run_id == run_id).with_for_update()
    connection.execute(held)
    still = select(_RUNS.c.id).join(_RANGES, _RANGES.c.run_id == _RUNS.c.id).where(_RUNS.c.id == run_id, *_finished())
    if connection.execute(still).first() is None:
        return 0
    failed = select(JOBS.c.last_error).where(JOBS.c.run_id == run_id, JOBS.c.state == JobState.DEAD.value).limit(1)
    error = connection.execute(failed).scalar_one_or_none()
    _fold_jobs(connection, run_id)
    dead = connection.execute(select(_RANGES.c.dead).where(_RANGES.c.run_id == run_id)).scalar_one()
    state = RunState.FAILED if error else RunState.PARTIAL if dead else RunState.SUCCEEDED
    _move(connection, run_id, state, error=error)
    return 1


def _fold_jobs(connection: Connection, run_id: str) -> None:
    """Sum what a run's jobs have counted, and delete them."""
    connection.execute(select(_RANGES.c.run_id).where(_RANGES.c.run_id == run_id).with_for_update())
    jobs = select(JOBS.c.pk).where(JOBS.c.run_id == run_id).order_by(JOBS.c.pk).with_for_update()
    pks = list(connection.execute(jobs).scalars())
    sums = [func.coalesce(func.sum(_RANGE_COUNTS.c[name]), 0).label(name) for name in COUNTS]
    counted = connection.execute(select(*sums).where(_RANGE_COUNTS.c.job_pk.in_(pks))).one()
    added = {name: _RANGES.c[name] + int(getattr(counted, name)) for name in COUNTS}
    connection.execute(update(_RANGES).where(_RANGES.c.run_id == run_id).values(added))
    connection.execute(delete(JOBS).where(JOBS.c.pk.in_(pks)))


def _move(connection: Connection, run_id: str, state: RunState, *, error: str | None = None) -> None:
    ends = state in (RunState.SUCCEEDED, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED)
    values: dict[str, object] = {"state": state.value}
    if ends:
        values |= {"finished_at": now_ms(), "error": error}
        values |= {"started_at": func.coalesce(_RUNS.c.started_at, _RUNS.c.created_at)}
    allowed = [source.value for source in sources(RUN_TRANSITIONS, state)]
    moved = update(_RUNS).where(_RUNS.c.id == run_id, _RUNS.c.state.in_(allowed), _RUNS.c.finished_at.is_(None))
    if not rows_affected(connection.execute(moved.values(values))):
        now = run_state(connection, run_id).value
        raise Conflict(f"run {run_id} is {now}: it cannot become {state.value}")


def _require_range_kind(kind: str, done: str) -> None:
    if kind not in RANGE_KINDS:
        raise Conflict(f"accepted writes cannot be {done}: this is a run of kind {kind}; a newer write supersedes them")
