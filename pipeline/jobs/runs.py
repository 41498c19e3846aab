"""Runs of accepted writes: opening, filling, sealing and ending them.

What a run counts are its items; nothing keeps a counter that could drift.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, insert, not_, select, update
from uuid_utils import uuid7

from pipeline.database import Database, insert_missing, now_ms, rows_affected, upsert
from pipeline.documents.store import Acceptance
from pipeline.errors import Conflict
from pipeline.jobs.states import RUN_ENDED, RUN_TRANSITIONS, Outcome, RunState, sources
from pipeline.jobs.tables import RunItemRow, RunRow

OPEN_RUN_S = 120.0
"""An open run whose client adds nothing for this long is sealed by the dispatcher."""

_ITEMS = RunItemRow.metadata.tables["run_items"]
_ENDED = [state.value for state in RUN_ENDED]


def open_run(connection: Connection, corpus_pk: int, *, kind: str, sealed: bool) -> str:
    """Create a run and return its id.

    Args:
        connection: An open writing unit.
        corpus_pk: Its corpus.
        kind: `ingest` or `delete`.
        sealed: True when all its documents are added in this very transaction.
    """
    run_id = str(uuid7())
    now = connection.execute(select(now_ms())).scalar_one()
    connection.execute(
        insert(RunRow).values(
            id=run_id,
            kind=kind,
            corpus_pk=corpus_pk,
            state=RunState.PENDING.value,
            sealed=sealed,
            open_until=None if sealed else now + round(OPEN_RUN_S * 1000),
            options="{}",
            created_at=now,
        )
    )
    return run_id


def add_items(connection: Connection, run_id: str, accepted: Sequence[Acceptance]) -> None:
    """Add documents to a run; older pending items of the changed ones are superseded, in any run.

    A document that is equal to a head nobody has published yet waits for that: a run that has succeeded promises that
    its documents are served.
    """
    now = connection.execute(select(now_ms())).scalar_one()
    changed = {item.document_pk for item in accepted if item.changed}
    connection.execute(
        update(RunItemRow)
        .where(RunItemRow.document_pk.in_(changed), RunItemRow.outcome == Outcome.PENDING.value)
        .values(outcome=Outcome.SUPERSEDED.value, updated_at=now)
    )
    rows = [
        {
            "run_id": run_id,
            "document_pk": item.document_pk,
            "generation": item.generation,
            "outcome": (Outcome.PENDING if item.waits else Outcome.UNCHANGED).value,
            "tokens": 0,
            "attempts": 0,
            "updated_at": now,
        }
        for item in accepted
    ]
    key = ["run_id", "document_pk"]
    columns = ["generation", "outcome", "tokens", "attempts", "updated_at"]
    upsert(connection, _ITEMS, [row for row in rows if row["document_pk"] in changed], key=key, update=columns)
    # The same document again in the same run: it still waits for what the run brought first.
    unchanged = [row for row in rows if row["document_pk"] not in changed]
    insert_missing(connection, _ITEMS, unchanged, returning=key)


def extend_open(connection: Connection, run_id: str) -> None:
    """Show that the client of an open run is alive.

    Raises:
        Conflict: The run was sealed meanwhile: its client was silent for too long.
    """
    until = now_ms() + round(OPEN_RUN_S * 1000)
    open_runs = update(RunRow).where(RunRow.id == run_id, not_(RunRow.sealed)).values(open_until=until)
    if not rows_affected(connection.execute(open_runs)):
        raise Conflict(f"run {run_id} is closed: its client was silent for over {OPEN_RUN_S:.0f} s; start again")


def seal(connection: Connection, run_id: str) -> None:
    """Say that nothing more comes; a run sealed already stays as it is."""
    connection.execute(update(RunRow).where(RunRow.id == run_id).values(sealed=True, open_until=None))


def seal_abandoned(database: Database) -> int:
    """Seal open runs whose client fell silent; what was accepted of them goes on. Return how many."""
    with database.write() as connection:
        statement = (
            update(RunRow)
            .where(not_(RunRow.sealed), RunRow.open_until < now_ms())
            .values(sealed=True, open_until=None, error="the client stopped before it had sent everything")
        )
        return rows_affected(connection.execute(statement))


def finish_items(connection: Connection, tokens: Mapping[int, int]) -> set[str]:
    """Mark the waiting items of published documents done; return the runs they belong to.

    Args:
        connection: The unit of work that made these documents' heads the served ones: whatever waits for them is done.
        tokens: Tokens by document row.
    """
    pks = list(tokens)
    waiting = and_(_ITEMS.c.document_pk.in_(pks), _ITEMS.c.outcome == Outcome.PENDING.value)
    runs = set(connection.execute(select(_ITEMS.c.run_id).where(waiting).distinct()).scalars())
    if runs:
        counted = case(tokens, value=_ITEMS.c.document_pk, else_=0)
        done = {"outcome": Outcome.DONE.value, "tokens": counted, "updated_at": now_ms()}
        connection.execute(update(_ITEMS).where(waiting).values(done))
        _start(connection, runs)
    return runs


def bury_items(connection: Connection, document_pk: int, *, stage: str, error: str, attempts: int) -> set[str]:
    """Mark the waiting items of a document that died; return the runs they belong to."""
    waiting = and_(_ITEMS.c.document_pk == document_pk, _ITEMS.c.outcome == Outcome.PENDING.value)
    runs = set(connection.execute(select(_ITEMS.c.run_id).where(waiting).distinct()).scalars())
    dead = {"stage": stage, "error": error, "attempts": attempts, "updated_at": now_ms()}
    connection.execute(update(_ITEMS).where(waiting).values(outcome=Outcome.DEAD.value, **dead))
    _start(connection, runs)
    return runs


def _start(connection: Connection, run_ids: Iterable[str]) -> None:
    moved = {"state": RunState.RUNNING.value, "started_at": func.coalesce(RunRow.started_at, now_ms())}
    pending = (RunRow.id.in_(list(run_ids)), RunRow.state == RunState.PENDING.value)
    connection.execute(update(RunRow).where(*pending).values(moved))


def settle(database: Database, run_ids: Iterable[str] | None = None) -> int:
    """End sealed runs that wait for nothing any more; return how many.

    Two workers that finish a run's last two items see each other's as pending and neither ends it: so this runs after
    their commits, and again in every tick of the dispatcher over all unfinished runs.
    """
    waits = exists().where(_ITEMS.c.run_id == RunRow.id, _ITEMS.c.outcome == Outcome.PENDING.value)
    has_dead = exists().where(_ITEMS.c.run_id == RunRow.id, _ITEMS.c.outcome == Outcome.DEAD.value)
    endable: list[ColumnElement[bool]] = [
        RunRow.kind.in_(["ingest", "delete"]),
        RunRow.sealed.is_(True),
        RunRow.state.in_([state.value for state in sources(RUN_TRANSITIONS, RunState.SUCCEEDED)]),
        ~waits,
    ]
    if run_ids is not None:
        endable.append(RunRow.id.in_(list(run_ids)))
    with database.read() as connection:
        if not connection.execute(select(RunRow.id).where(*endable).limit(1)).first():
            return 0
    ended = {
        "state": case((has_dead, RunState.PARTIAL.value), else_=RunState.SUCCEEDED.value),
        "started_at": func.coalesce(RunRow.started_at, RunRow.created_at),
        "finished_at": now_ms(),
    }
    with database.write() as connection:
        statement = update(RunRow).where(*endable).values(ended).execution_options(synchronize_session=False)
        return rows_affected(connection.execute(statement))


def cancel_runs_of_corpus(connection: Connection, corpus_pk: int) -> None:
    """End every run of a dropped corpus, with its items."""
    runs = select(RunRow.id).where(RunRow.corpus_pk == corpus_pk)
    connection.execute(
        update(RunItemRow)
        .where(RunItemRow.run_id.in_(runs), RunItemRow.outcome == Outcome.PENDING.value)
        .values(outcome=Outcome.CANCELLED.value, updated_at=now_ms())
    )
    connection.execute(
        update(RunRow)
        .where(RunRow.corpus_pk == corpus_pk, RunRow.state.not_in(_ENDED))
        .values(state=RunState.CANCELLED.value, finished_at=now_ms(), sealed=True, open_until=None)
    )
