"""What ended runs came to, written down before the rows go that it was counted from.

A run keeps its name and its numbers when its corpus is dropped, and while its items are pruned.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from pipeline.database import insert_missing
from pipeline.jobs.run_reports import count_runs
from pipeline.jobs.tables import RunRow, RunTotalsRow

_TOTALS = RunTotalsRow.metadata.tables["run_totals"]


def keep_totals(connection: Connection, run_ids: Sequence[str]) -> None:
    """Write down the totals of ended runs, in the transaction before their items go; those that are kept stay."""
    rows = [
        {
            "run_id": report.id,
            **{name: count for name, count in report.totals.items() if name in _TOTALS.c},
            "tokens": report.tokens,
            "differences": report.differences,
        }
        for report in count_runs(connection, run_ids)
    ]
    insert_missing(connection, _TOTALS, rows, returning=["run_id"])


def find_uncounted(connection: Connection, corpus_pk: int, *, limit: int) -> list[str]:
    """Return some runs of a corpus whose totals are not kept."""
    kept = select(RunTotalsRow.run_id).where(RunTotalsRow.run_id == RunRow.id).exists()
    statement = select(RunRow.id).where(RunRow.corpus_pk == corpus_pk, ~kept).order_by(RunRow.id).limit(limit)
    return list(connection.execute(statement).scalars())


def has_kept_totals(connection: Connection, run_id: str) -> bool:
    """Return whether a run's totals were kept: its items are gone, or go one after the other."""
    return connection.execute(select(RunTotalsRow.run_id).where(RunTotalsRow.run_id == run_id)).first() is not None
