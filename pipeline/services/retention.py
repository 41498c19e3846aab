"""Rows whose time is over: they are pruned a few hundred at a time, by the dispatcher that leads.

    runs                a month after they ended (three if they failed or some documents died), with items and notes
    deleted documents   as long after their deletion, once no run names them
    Idempotency-Keys    after a day
    dropped corpora     when no run names them

What stays: runs that have not ended; of each schedule the run that says how far it was followed; of each corpus the
verification that vouches for its entries. A deleted document leaves its corpus a *floor*: documents that are new to the
corpus begin above every generation that a pruned one ever had. So neither a tombstone nor a late writer of the old
document is newer than what is written for the same id afterwards.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select, tuple_, update

from pipeline.database import Database, rows_affected
from pipeline.documents.states import DocumentState
from pipeline.documents.tables import CorpusRow, DocumentRow, IdempotencyKeyRow, PointIntentRow
from pipeline.jobs.run_totals import keep_totals
from pipeline.jobs.states import RunState
from pipeline.jobs.tables import JobRow, RunDifferenceRow, RunItemRow, RunRow
from pipeline.services.ingestion import IDEMPOTENCY_LIFE
from pipeline.services.key_mismatches import forget_key_mismatches
from pipeline.services.refilling import WHOLE_REPAIR
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_DAY_MS = 24 * 3_600_000
_KEY_LIFE_MS = round(IDEMPOTENCY_LIFE.total_seconds() * 1000)
_FAILED_LONGER = 3
"""Runs that failed, in part or whole, are kept so many times as long."""
_RUNS = 200
_ITEMS = 2_000
_DOCUMENTS = 500
_KEYS = 1_000
BUDGET_S = 2.0
"""Seconds after which pruning waits for its next turn."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Rows that went."""

    runs: int = 0
    items: int = 0
    documents: int = 0
    keys: int = 0
    corpora: int = 0


def prune(database: Database, *, retention_days: int, now: int | None = None, budget_s: float = BUDGET_S) -> Pruned:
    """Prune until nothing is left whose time is over, or the time is.

    Args:
        database: Where rows are.
        retention_days: How long ended runs are kept.
        now: In ms; by default what the database's clock says.
        budget_s: Seconds after which no further step is begun.

    Raises:
        Unavailable: The database did not answer.
    """
    at = database.clock_ms() if now is None else now
    before, failed_before = at - retention_days * _DAY_MS, at - _FAILED_LONGER * retention_days * _DAY_MS
    until = time.monotonic() + budget_s
    forget_key_mismatches(database)
    pruned = Pruned(
        *_prune_all_runs(database, before=before, failed_before=failed_before, until=until),
        documents=_repeat(lambda: _prune_documents(database, before=before), until=until),
        keys=_repeat(lambda: _prune_keys(database, before=at - _KEY_LIFE_MS), until=until),
        corpora=_prune_corpora(database),
    )
    if pruned != Pruned():
        _log.info("retention.pruned", **asdict(pruned))
    return pruned


def _prune_all_runs(database: Database, *, before: int, failed_before: int, until: float) -> tuple[int, int]:
    runs = items = 0
    while True:
        gone, gone_items = _prune_runs(database, before=before, failed_before=failed_before)
        runs, items = runs + gone, items + gone_items
        if not gone + gone_items or time.monotonic() >= until:
            return runs, items


def _repeat(step: Callable[[], int], *, until: float) -> int:
    total = 0
    while gone := step():
        total += gone
        if time.monotonic() >= until:
            break
    return total


def _prune_runs(database: Database, *, before: int, failed_before: int) -> tuple[int, int]:
    """Delete some runs with their items, or some items of a large one; return how many runs and items went.

    A retry races here: the runs' rows are locked, and only those go that have still ended long ago.
    """
    due = _is_due(before=before, failed_before=failed_before)
    with database.read() as connection:
        run_ids = list(connection.execute(select(RunRow.id).where(due).limit(_RUNS)).scalars())
        if not run_ids:
            return 0, 0
        large, small = _by_size(connection, run_ids)
    with database.write() as connection:
        chosen = select(RunRow.id).where(RunRow.id.in_(small or large[:1]), due).order_by(RunRow.id)
        held = list(connection.execute(chosen.with_for_update(skip_locked=True)).scalars())
        if not small:
            keep_totals(connection, held)
            some = select(RunItemRow.document_pk).where(RunItemRow.run_id.in_(held)).limit(_ITEMS)
            return 0, _delete_items(connection, RunItemRow.run_id.in_(held), RunItemRow.document_pk.in_(some))
        items = _delete_items(connection, RunItemRow.run_id.in_(held))
        connection.execute(delete(RunDifferenceRow).where(RunDifferenceRow.run_id.in_(held)))
        return rows_affected(connection.execute(delete(RunRow).where(RunRow.id.in_(held)))), items


def _by_size(connection: Connection, run_ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return runs with too many items for one transaction, and as many others as fit into one."""
    counted = select(RunItemRow.run_id, func.count()).where(RunItemRow.run_id.in_(run_ids)).group_by(RunItemRow.run_id)
    counts = {run_id: int(count) for run_id, count in connection.execute(counted)}
    large = [run_id for run_id in run_ids if counts.get(run_id, 0) > _ITEMS]
    small, total = [], 0
    for run_id in run_ids:
        size = counts.get(run_id, 0)
        if size <= _ITEMS and total + size <= _ITEMS:
            small.append(run_id)
            total += size
    return large, small


def _delete_items(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    return rows_affected(connection.execute(delete(RunItemRow).where(*conditions)))


def _is_due(*, before: int, failed_before: int) -> ColumnElement[bool]:
    ended = or_(
        and_(RunRow.state.in_([RunState.SUCCEEDED.value, RunState.CANCELLED.value]), RunRow.finished_at < before),
        and_(RunRow.state.in_([RunState.PARTIAL.value, RunState.FAILED.value]), RunRow.finished_at < failed_before),
    )
    return and_(ended, ~_says_how_far(), ~_vouches())


def _says_how_far() -> ColumnElement[bool]:
    """Return the condition that a run is the latest of its schedule, which counts from its nominal time."""
    later = RunRow.__table__.alias("later")
    newer = exists().where(later.c.schedule_pk == RunRow.schedule_pk, later.c.nominal_at > RunRow.nominal_at)
    return and_(RunRow.schedule_pk.is_not(None), ~newer)


def _vouches() -> ColumnElement[bool]:
    """Return the condition that a run is the latest whole verification of its corpus: coverage is known by it."""
    later = RunRow.__table__.alias("later_verification")
    whole = (RunState.SUCCEEDED.value, RunState.PARTIAL.value)
    newer = exists().where(
        later.c.corpus_pk == RunRow.corpus_pk,
        later.c.kind == "verify",
        later.c.options == WHOLE_REPAIR,
        later.c.spec_id.is_(None),
        later.c.state.in_(whole),
        later.c.id > RunRow.id,
    )
    kept = CorpusRow.__table__.alias("vouched")
    living = exists().where(kept.c.pk == RunRow.corpus_pk, kept.c.dropped_at.is_(None))
    mine = and_(
        RunRow.kind == "verify",
        RunRow.options == WHOLE_REPAIR,
        RunRow.spec_id.is_(None),
        RunRow.state.in_(whole),
    )
    return and_(mine, living, ~newer)


def _prune_documents(database: Database, *, before: int) -> int:
    """Delete some rows of documents whose deletion was published long ago; return how many.

    A change that brings one back races here: it holds the row, or finds it gone and begins above the floor, which it
    reads afterwards.
    """
    gone = _is_gone(before=before)
    named = or_(*(exists().where(table.document_pk == DocumentRow.pk) for table in _NAMING))
    statement = select(DocumentRow.pk, DocumentRow.corpus_pk, DocumentRow.generation).where(gone, ~named)
    with database.read() as connection:
        rows = connection.execute(statement.order_by(DocumentRow.accepted_at).limit(_DOCUMENTS)).all()
    if not rows:
        return 0
    floors: dict[int, int] = {}
    for row in rows:
        floors[row.corpus_pk] = max(floors.get(row.corpus_pk, 0), row.generation)
    pks = [row.pk for row in rows]
    with database.write() as connection:
        for corpus_pk, floor in sorted(floors.items()):
            lower = (CorpusRow.pk == corpus_pk, func.coalesce(CorpusRow.generation_floor, 0) < floor)
            connection.execute(update(CorpusRow).where(*lower).values(generation_floor=floor))
        chosen = select(DocumentRow.pk, DocumentRow.corpus_pk, DocumentRow.generation)
        chosen = chosen.where(DocumentRow.pk.in_(pks), gone, ~named).order_by(DocumentRow.id)
        held = [
            pk
            for pk, corpus_pk, generation in connection.execute(chosen.with_for_update(skip_locked=True))
            if generation <= floors[corpus_pk]
        ]
        return rows_affected(connection.execute(delete(DocumentRow).where(DocumentRow.pk.in_(held))))


_NAMING = (RunItemRow, RunDifferenceRow, PointIntentRow)


def _is_gone(*, before: int) -> ColumnElement[bool]:
    return and_(
        DocumentRow.state == DocumentState.DELETED.value,
        DocumentRow.published_generation == DocumentRow.generation,
        DocumentRow.accepted_at < before,
    )


def _prune_keys(database: Database, *, before: int) -> int:
    name = (IdempotencyKeyRow.principal, IdempotencyKeyRow.corpus, IdempotencyKeyRow.key)
    some = (
        select(*name).where(IdempotencyKeyRow.created_at < before).order_by(IdempotencyKeyRow.created_at).limit(_KEYS)
    )
    with database.read() as connection:
        old = [tuple(row) for row in connection.execute(some)]
    if not old:
        return 0
    with database.write() as connection:
        still = (tuple_(*name).in_(old), IdempotencyKeyRow.created_at < before)
        return rows_affected(connection.execute(delete(IdempotencyKeyRow).where(*still)))


def _prune_corpora(database: Database) -> int:
    """Delete dropped corpora whose removal has finished and that no run names any more."""
    named = or_(*(exists().where(table.corpus_pk == CorpusRow.pk) for table in (RunRow, JobRow, DocumentRow)))
    gone = (CorpusRow.dropped_at.is_not(None), ~named)
    with database.read() as connection:
        pks = list(connection.execute(select(CorpusRow.pk).where(*gone).limit(_RUNS)).scalars())
    if not pks:
        return 0
    with database.write() as connection:
        return rows_affected(connection.execute(delete(CorpusRow).where(CorpusRow.pk.in_(pks), *gone)))
