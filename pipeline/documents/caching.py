"""Switching caching off and on for one corpus under one spec: a row, so that every process and every start obeys it.

`disabled_at` and `enabled_at` only ever grow, whatever the database's clock does: a reader who knows of a switch-off
can tell a row that was enabled after it from one that was read before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from pipeline.database import now_ms, rows_affected
from pipeline.documents.tables import CorpusRow, CorpusSpecRow


@dataclass(frozen=True, slots=True)
class CachingOff:
    """One corpus that answers without the cache under one spec."""

    corpus: str
    spec_id: str
    reason: str
    """One sentence with passage keys, never text."""
    disabled_at: int
    """Milliseconds since 1970 by the database's clock; 0 where a row does not say when."""


def disable_caching(connection: Connection, collection: str, spec_id: str, *, reason: str) -> int | None:
    """Switch caching off, or say again why it is off; return `disabled_at`.

    Whoever verifies at this moment has verified in vain: enabling compares the time.

    Args:
        connection: An open writing unit.
        collection: Of the corpus; unlike its name never used again.
        spec_id: The spec.
        reason: One sentence.

    Returns:
        The time written; None if the corpus has no row for the spec.
    """
    corpus_pk = select(CorpusRow.pk).where(CorpusRow.collection == collection).scalar_subquery()
    chosen = (CorpusSpecRow.corpus_pk == corpus_pk, CorpusSpecRow.spec_id == spec_id)
    times = select(CorpusSpecRow.enabled_at, CorpusSpecRow.disabled_at).where(*chosen).with_for_update()
    row = connection.execute(times).first()
    if row is None:
        return None
    now = connection.execute(select(now_ms())).scalar_one()
    disabled_at = max(int(now), *((earlier or 0) + 1 for earlier in row))
    off = {"caching_enabled": False, "disabled_reason": reason, "disabled_at": disabled_at}
    connection.execute(update(CorpusSpecRow).where(*chosen).values(off))
    return disabled_at


def enable_caching(connection: Connection, off: CachingOff) -> bool:
    """Switch caching on again, unless it was switched off anew since `off` was read; return whether it was done."""
    now = connection.execute(select(now_ms())).scalar_one()
    corpus_pk = select(CorpusRow.pk).where(CorpusRow.name == off.corpus, CorpusRow.dropped_at.is_(None))
    unchanged = (
        CorpusSpecRow.corpus_pk == corpus_pk.scalar_subquery(),
        CorpusSpecRow.spec_id == off.spec_id,
        CorpusSpecRow.disabled_at.is_not_distinct_from(off.disabled_at or None),
    )
    on = {
        "caching_enabled": True,
        "disabled_reason": None,
        "disabled_at": None,
        "enabled_at": max(int(now), off.disabled_at + 1),
    }
    return rows_affected(connection.execute(update(CorpusSpecRow).where(*unchanged).values(on))) > 0


def list_caching_off(
    connection: Connection, *, spec_id: str | None = None, corpora: Sequence[str] | None = None
) -> list[CachingOff]:
    """Return where caching is off, by corpus and spec.

    Args:
        connection: An open unit.
        spec_id: Only under this spec.
        corpora: Corpora that may be spoken of; None for all.
    """
    statement = (
        select(CorpusRow.name, CorpusSpecRow.spec_id, CorpusSpecRow.disabled_reason, CorpusSpecRow.disabled_at)
        .join(CorpusSpecRow, CorpusSpecRow.corpus_pk == CorpusRow.pk)
        .where(CorpusRow.dropped_at.is_(None), CorpusSpecRow.status != "dropped", ~CorpusSpecRow.caching_enabled)
        .order_by(CorpusRow.name, CorpusSpecRow.spec_id)
    )
    if spec_id is not None:
        statement = statement.where(CorpusSpecRow.spec_id == spec_id)
    if corpora is not None:
        statement = statement.where(CorpusRow.name.in_(corpora))
    return [
        CachingOff(corpus, spec, reason or "switched off by hand", disabled_at or 0)
        for corpus, spec, reason, disabled_at in connection.execute(statement)
    ]
