"""Starting runs over a corpus, and what operators do with runs: pause, resume, cancel, retry."""

from sqlalchemy import exists, or_, select, update

from pipeline.database import Database, now_ms
from pipeline.documents.corpora import filled_specs
from pipeline.documents.corpus_specs import hold_spec_set, start_filling
from pipeline.documents.states import DocumentState
from pipeline.documents.tables import CorpusRow, DocumentRow
from pipeline.errors import Conflict, InvalidInput, NotFound
from pipeline.jobs.range_runs import (
    RANGE_KINDS,
    Nominal,
    RangeOptions,
    cancel_run,
    find_unfinished_like,
    has_unfinished_of_schedule,
    open_range_run,
    pause_run,
    resume_run,
    settle_ranges,
)
from pipeline.jobs.run_reports import RunReport, get_run
from pipeline.jobs.run_totals import has_kept_totals
from pipeline.jobs.states import RUN_ENDED, Outcome, RunState
from pipeline.jobs.store import request_event_jobs
from pipeline.jobs.tables import RunItemRow, RunRow

GC_EVERY_MS = 24 * 3_600_000
"""How often garbage is collected by itself, in milliseconds."""

_ALLOWED = {
    "retokenize": {"only_changed", "dry_run"},
    "backfill": {"dry_run"},
    "verify": {"sample", "repair"},
    "gc": {"dry_run"},
}


def start_range_run(
    database: Database,
    corpus: str,
    *,
    kind: str,
    spec: str | None = None,
    options: RangeOptions | None = None,
    nominal: Nominal | None = None,
) -> str | None:
    """Start a run over everything a corpus serves now, or return the one that was asked to do the same.

    Two who start the same run race here: the corpus' row is locked, the second one finds the first one's run.

    Args:
        database: Where runs are.
        corpus: Name of the corpus.
        kind: `retokenize`, `backfill`, `verify` or `gc`.
        spec: Only for this spec; None for every spec the corpus is filled for. A backfill for one that it is not
            filled for yet begins to: it is built beside the others.
        options: What to do; by default everything.
        nominal: The time a schedule meant; there is at most one run for it, and none while an earlier one goes on.

    Returns:
        The run's id; None if there is nothing to start for `nominal`.

    Raises:
        NotFound: There is no such corpus or spec, or it is not filled for the spec.
        InvalidInput: The kind is unknown, or an option does not go with it.
    """
    chosen = options or RangeOptions()
    _check_options(kind, chosen)
    with database.write() as connection:
        held = hold_spec_set(connection, corpus)
        if spec is not None and kind == "backfill" and not chosen.dry_run:
            start_filling(connection, held, spec)
        if spec is not None and spec not in [filled.spec_id for filled in filled_specs(connection, held.pk)]:
            raise NotFound(f"corpus {corpus!r} is not filled for spec {spec!r}")
        if nominal is not None and has_unfinished_of_schedule(connection, nominal.schedule_pk):
            return None
        if nominal is None:
            same = find_unfinished_like(connection, held.pk, kind=kind, spec_id=spec, options=chosen)
            if same is not None:
                return same
        run_id = open_range_run(connection, held.pk, kind=kind, spec_id=spec, options=chosen, nominal=nominal)
    settle_ranges(database)  # a run over nothing has ended
    return run_id


def start_due_gc(database: Database) -> str | None:
    """Start a gc run for a corpus that had none for a day, one corpus at a time; return its id."""
    recent = exists().where(
        RunRow.corpus_pk == CorpusRow.pk,
        RunRow.kind == "gc",
        or_(RunRow.finished_at.is_(None), RunRow.created_at > now_ms() - GC_EVERY_MS),
    )
    under_way = exists().where(RunRow.kind == "gc", RunRow.finished_at.is_(None))
    old = CorpusRow.created_at < now_ms() - GC_EVERY_MS
    statement = select(CorpusRow.name).where(CorpusRow.dropped_at.is_(None), old, ~recent, ~under_way)
    with database.read() as connection:
        name = connection.execute(statement.order_by(CorpusRow.pk).limit(1)).scalar_one_or_none()
    return None if name is None else start_range_run(database, name, kind="gc")


def pause(database: Database, run_id: str) -> RunReport:
    """Pause a run: its workers stop within a slice and keep what they have done.

    Raises:
        NotFound: There is no such run.
        Conflict: It has ended, or is one of accepted writes.
    """
    with database.write() as connection:
        pause_run(connection, run_id, get_run(connection, run_id).kind)
        return get_run(connection, run_id)


def resume(database: Database, run_id: str) -> RunReport:
    """Let a paused run go on where it stopped.

    Raises:
        NotFound: There is no such run.
        Conflict: It has ended, or is one of accepted writes.
    """
    with database.write() as connection:
        resume_run(connection, run_id, get_run(connection, run_id).kind)
        return get_run(connection, run_id)


def cancel(database: Database, run_id: str) -> RunReport:
    """End a run for good; what it has written stays.

    Raises:
        NotFound: There is no such run.
        Conflict: It has ended otherwise, or is one of accepted writes.
    """
    with database.write() as connection:
        cancel_run(connection, run_id, get_run(connection, run_id).kind)
        return get_run(connection, run_id)


def retry(database: Database, run_id: str) -> RunReport:
    """Try again what failed in a run that has ended, and return the run that does it.

    Accepted writes: documents that died and were not changed since are tried anew, and the run goes on. A run over a
    corpus is started anew.

    Raises:
        NotFound: There is no such run.
        Conflict: It has not ended, or nothing of it failed.
    """
    with database.read() as connection:
        report = get_run(connection, run_id)
    if report.state not in (RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED):
        state = "has not ended" if report.state not in RUN_ENDED else f"has {report.state}"
        raise Conflict(f"run {run_id} {state}: there is nothing to retry")
    if report.is_of_dropped:
        raise Conflict(f"run {run_id} is of a corpus that was dropped: there is nothing to retry")
    if report.kind not in RANGE_KINDS:
        return _retry_dead(database, report)
    options = RangeOptions(**report.options)
    again = start_range_run(database, report.corpus, kind=report.kind, spec=report.spec, options=options)
    with database.read() as connection:
        return get_run(connection, again or run_id)


def _retry_dead(database: Database, report: RunReport) -> RunReport:
    """Reopen dead items whose generation is still the head, with the jobs they need, in one transaction."""
    dead = (RunItemRow.run_id == report.id, RunItemRow.outcome == Outcome.DEAD.value)
    statement = (
        select(DocumentRow.pk, DocumentRow.corpus_pk, DocumentRow.bucket, DocumentRow.queue)
        .join(RunItemRow, RunItemRow.document_pk == DocumentRow.pk)
        .where(*dead, DocumentRow.state == DocumentState.DEAD.value, DocumentRow.generation == RunItemRow.generation)
        .order_by(DocumentRow.id)
        .with_for_update(of=DocumentRow)
    )
    with database.write() as connection:
        rows = connection.execute(statement).all()
        if not rows or has_kept_totals(connection, report.id):
            raise Conflict(f"run {report.id} has no dead document that was not changed since")
        pks = [row.pk for row in rows]
        again = {"attempts": 0, "available_at": now_ms()}
        for state, is_served in ((DocumentState.PENDING, False), (DocumentState.STALE, True)):
            served = DocumentRow.served_generation > 0 if is_served else DocumentRow.served_generation == 0
            chosen = update(DocumentRow).where(DocumentRow.pk.in_(pks), served)
            connection.execute(chosen.values(state=state.value, **again).execution_options(synchronize_session=False))
        waiting = {"outcome": Outcome.PENDING.value, "error": None, "stage": None, "updated_at": now_ms()}
        connection.execute(update(RunItemRow).where(*dead, RunItemRow.document_pk.in_(pks)).values(waiting))
        reopened = {"state": RunState.RUNNING.value, "finished_at": None}
        partial = (RunRow.id == report.id, RunRow.state == RunState.PARTIAL.value)
        connection.execute(update(RunRow).where(*partial).values(reopened))
        for queue in sorted({row.queue for row in rows}):
            buckets = {row.bucket for row in rows if row.queue == queue}
            request_event_jobs(connection, rows[0].corpus_pk, queue=queue, buckets=buckets)
        return get_run(connection, report.id)


def _check_options(kind: str, options: RangeOptions) -> None:
    if kind not in RANGE_KINDS:
        raise InvalidInput(f"kind {kind!r} is not one of {', '.join(RANGE_KINDS)}", item="kind")
    for name in options.__slots__:
        if getattr(options, name) and name not in _ALLOWED[kind]:
            known = ", ".join(sorted(_ALLOWED[kind]))
            raise InvalidInput(f"option {name} does not go with {kind}, which knows {known}", item="options")
    if options.sample is not None and options.sample < 1:
        raise InvalidInput("sample must be at least 1 document", item="options")
