"""The specs a corpus is filled for: starting, activating and ending them by one transition table.

Each function works inside the caller's unit of work, which holds the corpus' row (`hold_spec_set`): publications read
the set's version under a shared lock of that row when they settle, so none settles by an older set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from pipeline.database import now_ms
from pipeline.documents.corpora import Corpus, get_corpus
from pipeline.documents.ranges import unfilled
from pipeline.documents.spec_states import CorpusSpecState, check_spec_transition
from pipeline.documents.states import DocumentState
from pipeline.documents.tables import CorpusRow, CorpusSpecRow, DocumentRow, LedgerRow
from pipeline.errors import Conflict, NotFound
from pipeline.tokenizers.tables import SpecRow

_SPECS = CorpusSpecRow.metadata.tables["corpus_specs"]
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Missing:
    """Served documents that have passages without an entry under a spec."""

    documents: int
    dead: int
    """Of these, how many serve an older generation since their newest one is dead: nothing will fill them."""
    examples: tuple[str, ...]
    """Ids of a few, the dead ones first."""


def hold_spec_set(connection: Connection, name: str) -> Corpus:
    """Lock a corpus against whoever settles a publication of it or changes its specs; requests go on.

    Raises:
        NotFound: There is no such corpus.
    """
    found = select(CorpusRow.pk).where(CorpusRow.name == name, CorpusRow.dropped_at.is_(None))
    connection.execute(found.with_for_update(key_share=True))
    return get_corpus(connection, name)


def spec_state(connection: Connection, corpus_pk: int, spec_id: str) -> CorpusSpecState | None:
    """Return what a corpus does with a spec; None if it never did anything with it."""
    statement = select(_SPECS.c.status).where(_SPECS.c.corpus_pk == corpus_pk, _SPECS.c.spec_id == spec_id)
    found = connection.execute(statement).scalar_one_or_none()
    return None if found is None else CorpusSpecState(found)


def corpora_with(connection: Connection, spec_id: str, states: Sequence[CorpusSpecState]) -> list[str]:
    """Return the names of corpora that have a spec in one of these states, sorted."""
    statement = (
        select(CorpusRow.name)
        .join(CorpusSpecRow, CorpusSpecRow.corpus_pk == CorpusRow.pk)
        .where(
            CorpusSpecRow.spec_id == spec_id,
            CorpusSpecRow.status.in_([state.value for state in states]),
            CorpusRow.dropped_at.is_(None),
        )
        .order_by(CorpusRow.name)
    )
    return list(connection.execute(statement).scalars())


def start_filling(connection: Connection, corpus: Corpus, spec_id: str) -> bool:
    """Have every publication from now on fill a spec, too; return whether it was not filled before.

    A job claimed before notices when it settles, and fills what is missing first.

    Raises:
        NotFound: There is no such spec.
    """
    state = spec_state(connection, corpus.pk, spec_id)
    if state is not None and state is not CorpusSpecState.DROPPED:
        return False
    if connection.execute(select(SpecRow.id).where(SpecRow.id == spec_id)).first() is None:
        raise NotFound(f"there is no spec {spec_id!r}: add it with `forefill spec add`")
    values = {"status": CorpusSpecState.BUILDING.value, "created_at": now_ms()}
    if state is None:
        connection.execute(insert(_SPECS).values(corpus_pk=corpus.pk, spec_id=spec_id, caching_enabled=True, **values))
    else:
        ended = (_SPECS.c.corpus_pk == corpus.pk, _SPECS.c.spec_id == spec_id)
        # Where an audit has switched caching off it stays off: building proves nothing.
        connection.execute(update(_SPECS).where(*ended).values(**values, activated_at=None))
        # A drop that was cut short, or is not through yet, has left ledger rows whose entries garbage collection takes.
        left = (LedgerRow.corpus_pk == corpus.pk, LedgerRow.spec_id == spec_id)
        connection.execute(delete(LedgerRow).where(*left))
    connection.execute(update(SpecRow).where(SpecRow.id == spec_id).values(dropped_at=None))
    _bump(connection, corpus.pk)
    return True


def activate_spec(connection: Connection, corpus: Corpus, spec_id: str) -> None:
    """Let readers use a spec; the one they used is retiring. Activating the active one changes nothing.

    Raises:
        Conflict: The corpus is not filled for it.
    """
    state = spec_state(connection, corpus.pk, spec_id)
    if state is CorpusSpecState.ACTIVE:
        return
    if state is None:
        raise Conflict(f"corpus {corpus.name!r} is not filled for spec {spec_id}")
    check_spec_transition(spec_id, corpus.name, state, CorpusSpecState.ACTIVE)
    mine = _SPECS.c.corpus_pk == corpus.pk
    active = update(_SPECS).where(mine, _SPECS.c.status == CorpusSpecState.ACTIVE.value)
    connection.execute(active.values(status=CorpusSpecState.RETIRING.value))
    chosen = update(_SPECS).where(mine, _SPECS.c.spec_id == spec_id)
    connection.execute(chosen.values(status=CorpusSpecState.ACTIVE.value, activated_at=now_ms()))


def spec_before(connection: Connection, corpus: Corpus) -> str:
    """Return the spec that readers of a corpus used before the active one.

    Raises:
        Conflict: There is none that is still filled.
    """
    statement = (
        select(_SPECS.c.spec_id)
        .where(_SPECS.c.corpus_pk == corpus.pk, _SPECS.c.status == CorpusSpecState.RETIRING.value)
        .order_by(_SPECS.c.activated_at.desc(), _SPECS.c.spec_id)
        .limit(1)
    )
    found = connection.execute(statement).scalar_one_or_none()
    if found is None:
        raise Conflict(f"corpus {corpus.name!r} has no retiring spec to roll back to")
    return str(found)


def end_filling(connection: Connection, corpus: Corpus, spec_id: str) -> None:
    """Fill a spec no more. Dropping a dropped one changes nothing.

    Raises:
        Conflict: It is the active one, or the corpus never was filled for it.
    """
    state = spec_state(connection, corpus.pk, spec_id)
    if state is CorpusSpecState.DROPPED:
        return
    if state is None:
        raise Conflict(f"corpus {corpus.name!r} is not filled for spec {spec_id}")
    check_spec_transition(spec_id, corpus.name, state, CorpusSpecState.DROPPED)
    chosen = update(_SPECS).where(_SPECS.c.corpus_pk == corpus.pk, _SPECS.c.spec_id == spec_id)
    connection.execute(chosen.values(status=CorpusSpecState.DROPPED.value))
    _bump(connection, corpus.pk)


def find_missing(connection: Connection, corpus_pk: int, spec_id: str, *, since: int) -> Missing:
    """Return what a corpus serves without an entry under a spec, by the ledger.

    Args:
        connection: An open unit.
        corpus_pk: The corpus.
        spec_id: The spec.
        since: Entries stored before this time of the database's clock are not believed (the cache's epoch).
    """
    lacking = (
        DocumentRow.corpus_pk == corpus_pk,
        DocumentRow.served_generation > 0,
        unfilled([spec_id], since=since),
    )
    is_dead = DocumentRow.state == DocumentState.DEAD.value
    total, dead = (
        int(connection.execute(select(func.count()).select_from(DocumentRow).where(*lacking, *also)).scalar_one())
        for also in ((), (is_dead,))
    )
    few = select(DocumentRow.id).where(*lacking).order_by(is_dead.desc(), DocumentRow.pk).limit(_NAMED)
    return Missing(total, dead, tuple(connection.execute(few).scalars()) if total else ())


def refill_in_flight(connection: Connection, corpus_pks: Sequence[int]) -> None:
    """Have publications and range jobs that are under way write their entries again before they record them.

    For entries that were dropped on purpose. What was recorded before this commits is seen by whoever looks afterwards.
    """
    for corpus_pk in sorted(corpus_pks):
        _bump(connection, corpus_pk)


def _bump(connection: Connection, corpus_pk: int) -> None:
    moved = update(CorpusRow).where(CorpusRow.pk == corpus_pk)
    connection.execute(moved.values(spec_set_version=CorpusRow.spec_set_version + 1))
