"""What became of runs: for people and for their programs.

What a run has come to is counted from rows: its items, or what its range jobs have counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, func, literal, select, union_all

from pipeline.database import now_ms
from pipeline.documents.tables import CorpusRow, DocumentRow
from pipeline.errors import NotFound
from pipeline.jobs.claims import JOBS
from pipeline.jobs.range_runs import COUNTS, RANGE_KINDS
from pipeline.jobs.states import RUN_ENDED, Outcome, RunState
from pipeline.jobs.tables import RangeCountRow, RangeRunRow, RunDifferenceRow, RunItemRow, RunRow, RunTotalsRow

_KEPT = ("done", "unchanged", "superseded", "dead", "cancelled", "tokens", "differences")


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run with what its items count."""

    id: str
    kind: str
    corpus: str
    spec: str | None
    state: str
    sealed: bool
    error: str | None
    totals: Mapping[str, int]
    """Documents by outcome, and `documents`, their sum."""
    tokens: int
    differences: int
    """Documents whose stored state was not what the run computed."""
    options: Mapping[str, Any]
    """What it was asked to do, where not the default."""
    created_at: int
    started_at: int | None
    finished_at: int | None
    nominal_at: int | None
    """The time its schedule meant, in ms; None if no schedule asked for it."""
    eta_s: float | None
    """Seconds until it ends at the pace so far; None when unknown or ended."""
    is_of_dropped: bool = False
    """Whether its corpus was dropped; another one may have the name by now."""


def get_run(connection: Connection, run_id: str) -> RunReport:
    """Return one run.

    Raises:
        NotFound: There is none.
    """
    reports = _report(connection, [RunRow.id == run_id], limit=1)
    if not reports:
        raise NotFound(f"there is no run {run_id!r}")
    return reports[0]


def list_runs(
    connection: Connection,
    *,
    corpora: Sequence[str] | None = None,
    before: str | None = None,
    limit: int = 50,
    unfinished: bool = False,
) -> list[RunReport]:
    """Return runs, newest first.

    Args:
        connection: An open unit.
        corpora: Only runs of these corpora; None for all.
        before: Only runs older than this one.
        limit: At most this many.
        unfinished: Only runs that have not ended.
    """
    conditions: list[ColumnElement[bool]] = [CorpusRow.dropped_at.is_(None)]
    if corpora is not None:
        conditions.append(CorpusRow.name.in_(corpora))
    if before is not None:
        conditions.append(RunRow.id < before)
    if unfinished:
        conditions.append(RunRow.state.not_in([state.value for state in RUN_ENDED]))
    return _report(connection, conditions, limit=limit)


def count_runs(connection: Connection, run_ids: Sequence[str]) -> list[RunReport]:
    """Return runs by id, of dropped corpora too."""
    return _report(connection, [RunRow.id.in_(run_ids)], limit=len(run_ids))


def _report(connection: Connection, conditions: Sequence[ColumnElement[bool]], *, limit: int) -> list[RunReport]:
    statement = (
        select(
            RunRow,
            CorpusRow.name.label("corpus"),
            CorpusRow.dropped_at,
            *(getattr(RunTotalsRow, name).label(f"kept_{name}") for name in _KEPT),
            now_ms().label("now"),
            RangeRunRow.expected,
            RangeRunRow.paused_at,
            RangeRunRow.paused_ms,
            *(getattr(RangeRunRow, name).label(f"folded_{name}") for name in COUNTS),
        )
        .join(CorpusRow, CorpusRow.pk == RunRow.corpus_pk)
        .outerjoin(RangeRunRow, RangeRunRow.run_id == RunRow.id)
        .outerjoin(RunTotalsRow, RunTotalsRow.run_id == RunRow.id)
        .where(*conditions)
        .order_by(RunRow.id.desc())
        .limit(limit)
    )
    rows = connection.execute(statement).all()
    counted = [row for row in rows if row.kept_done is None]
    items = _count_items(connection, [row.id for row in counted if row.kind not in RANGE_KINDS])
    ranges = _count_ranges(connection, [row.id for row in counted if row.kind in RANGE_KINDS])
    differences = _count_differences(connection, [row.id for row in counted if row.kind in RANGE_KINDS])
    reports = []
    for row in rows:
        if row.kept_done is not None:
            totals = {outcome.value: int(getattr(row, f"kept_{outcome.value}", 0)) for outcome in Outcome}
            tokens = row.kept_tokens
        elif row.kind in RANGE_KINDS:
            totals, tokens = _range_totals(row, ranges.get(row.id, {}))
        else:
            outcomes, tokens = items.get(row.id, ({}, 0))
            totals = {outcome.value: outcomes.get(outcome.value, 0) for outcome in Outcome}
        reports.append(
            RunReport(
                id=row.id,
                kind=row.kind,
                corpus=row.corpus.partition("#")[0],  # a dropped corpus has given its name free
                spec=row.spec_id,
                state=row.state,
                sealed=row.sealed,
                error=row.error,
                totals={"documents": sum(totals.values()), **totals},
                tokens=tokens,
                differences=differences.get(row.id, 0) if row.kept_done is None else row.kept_differences,
                options=orjson.loads(row.options),
                created_at=row.created_at,
                started_at=row.started_at,
                finished_at=row.finished_at,
                nominal_at=row.nominal_at,
                eta_s=_eta_s(row, totals),
                is_of_dropped=row.dropped_at is not None,
            )
        )
    return reports


def _range_totals(row: Row[Any], counted: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return outcomes and tokens of a run over a range: what ended jobs left, what jobs count, and the rest.

    While it runs, what is left is what was there at its start less what is worked through.
    """
    sums = {name: int(getattr(row, f"folded_{name}") or 0) + counted.get(name, 0) for name in COUNTS}
    totals = {outcome.value: sums.get(outcome.value, 0) for outcome in Outcome}
    rest = max(0, int(row.expected or 0) - sum(totals.values()))
    if row.state == RunState.CANCELLED:
        totals[Outcome.CANCELLED.value] = rest
    elif row.finished_at is None:
        totals[Outcome.PENDING.value] = rest
    return totals, sums["tokens"]


def _eta_s(row: Row[Any], totals: Mapping[str, int]) -> float | None:
    """Return seconds to the end at the pace so far, pauses left out; unknown before the first document is finished."""
    is_range = row.kind in RANGE_KINDS
    finished = sum(totals.values()) - totals["pending"] - (0 if is_range else totals["unchanged"])
    if row.finished_at is not None or not finished or not row.sealed:
        return None
    now = row.paused_at or row.now
    worked_s = max(0, now - (row.started_at or now) - (row.paused_ms or 0)) / 1000
    return float(totals["pending"] * worked_s / finished)


def _count_items(connection: Connection, run_ids: Sequence[str]) -> dict[str, tuple[dict[str, int], int]]:
    statement = (
        select(RunItemRow.run_id, RunItemRow.outcome, func.count(), func.sum(RunItemRow.tokens))
        .where(RunItemRow.run_id.in_(run_ids))
        .group_by(RunItemRow.run_id, RunItemRow.outcome)
    )
    found: dict[str, tuple[dict[str, int], int]] = {}
    for run_id, outcome, count, tokens in connection.execute(statement):
        outcomes, total = found.get(run_id, ({}, 0))
        found[run_id] = ({**outcomes, outcome: count}, total + int(tokens or 0))
    return found


def _count_ranges(connection: Connection, run_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    statement = (
        select(JOBS.c.run_id, *(func.sum(getattr(RangeCountRow, name)).label(name) for name in COUNTS))
        .join(RangeCountRow, RangeCountRow.job_pk == JOBS.c.pk)
        .where(JOBS.c.run_id.in_(run_ids))
        .group_by(JOBS.c.run_id)
    )
    return {row.run_id: {name: int(getattr(row, name)) for name in COUNTS} for row in connection.execute(statement)}


def _count_differences(connection: Connection, run_ids: Sequence[str]) -> dict[str, int]:
    statement = (
        select(RunDifferenceRow.run_id, func.count())
        .where(RunDifferenceRow.run_id.in_(run_ids))
        .group_by(RunDifferenceRow.run_id)
    )
    return {run_id: int(count) for run_id, count in connection.execute(statement)}


@dataclass(frozen=True, slots=True)
class ItemError:
    """A document that died in a run, or of which something stored was not what the run computed."""

    document_id: str
    generation: int
    stage: str
    error: str
    attempts: int
    at: int
    """Milliseconds since 1970."""


def list_errors(connection: Connection, run_id: str, *, after: str | None = None, limit: int = 100) -> list[ItemError]:
    """Return a run's dead documents and those that differed (stage `compare`) ordered by id, those after an id."""
    dead = select(
        RunItemRow.document_pk,
        RunItemRow.generation,
        func.coalesce(RunItemRow.stage, "").label("stage"),
        RunItemRow.error,
        RunItemRow.attempts,
        RunItemRow.updated_at.label("at"),
    ).where(RunItemRow.run_id == run_id, RunItemRow.outcome == Outcome.DEAD.value)
    differing = select(
        RunDifferenceRow.document_pk,
        RunDifferenceRow.generation,
        literal("compare"),
        RunDifferenceRow.difference,
        literal(0),
        RunDifferenceRow.found_at,
    ).where(RunDifferenceRow.run_id == run_id)
    found = union_all(dead, differing).subquery()
    statement = (
        select(DocumentRow.id, found.c.generation, found.c.stage, found.c.error, found.c.attempts, found.c.at)
        .join(found, found.c.document_pk == DocumentRow.pk)
        .where(DocumentRow.id > (after or ""))
        .order_by(DocumentRow.id)
        .limit(limit)
    )
    return [ItemError(*row) for row in connection.execute(statement)]


@dataclass(frozen=True, slots=True)
class RunItem:
    """One document of a run."""

    document_pk: int
    document_id: str
    generation: int


def list_items(connection: Connection, run_id: str, *, after: int = 0, limit: int) -> list[RunItem]:
    """Return a run's documents in the order of their rows, those after a row."""
    statement = (
        select(RunItemRow.document_pk, DocumentRow.id, RunItemRow.generation)
        .join(DocumentRow, DocumentRow.pk == RunItemRow.document_pk)
        .where(RunItemRow.run_id == run_id, RunItemRow.document_pk > after)
        .order_by(RunItemRow.document_pk)
        .limit(limit)
    )
    return [RunItem(*row) for row in connection.execute(statement)]
