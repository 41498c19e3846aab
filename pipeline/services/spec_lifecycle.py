"""Changing the spec of a corpus that is being read: built beside the old one, activated when nothing is missing.

Readers take one snapshot per question, so none sees a mixture; the old spec stays filled until it is dropped, so that
rolling back is activating it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from pipeline.database import Database, now_ms, rows_affected
from pipeline.documents.corpora import Corpus
from pipeline.documents.corpus_specs import (
    Missing,
    activate_spec,
    corpora_with,
    end_filling,
    find_missing,
    hold_spec_set,
    spec_before,
    spec_state,
)
from pipeline.documents.spec_states import CorpusSpecState
from pipeline.documents.tables import LedgerRow
from pipeline.errors import Conflict, NotFound
from pipeline.jobs.installation import cache_epoch_at
from pipeline.services.range_runs import start_range_run
from pipeline.services.refilling import corpora_of_unknown_coverage
from pipeline.services.spec_loading import SpecLoader
from pipeline.services.specs import ensure_spec
from pipeline.tokenizers.tables import SpecRow

_FILLED = (CorpusSpecState.BUILDING, CorpusSpecState.ACTIVE, CorpusSpecState.RETIRING)
_SLICE = 500
_NOTHING = Missing(0, 0, ())


@dataclass(frozen=True, slots=True)
class Activation:
    """What readers of one corpus use from now on."""

    corpus: str
    spec_id: str
    missing: Missing
    """What was accepted as missing; every query that needs it tokenizes."""


def build(database: Database, spec_id: str, corpus: str) -> str:
    """Fill a corpus for a spec beside those it is filled for; return the id of the backfill that does it.

    Events fill it from their next settling on, the backfill what was served before. Both begin in one transaction.
    Building what is built already starts a backfill, or returns the one that goes on.

    Raises:
        NotFound: There is no such corpus.
        InvalidInput: There is no such spec.
        ExactnessError: This process computes other ids than were recorded.
    """
    spec = SpecLoader(database).load(spec_id)
    with database.write() as connection:
        ensure_spec(connection, spec)
    run_id = start_range_run(database, corpus, kind="backfill", spec=spec_id)
    assert run_id is not None  # noqa: S101  # only a schedule's run may be there already
    return run_id


def activate(
    database: Database, spec_id: str, *, corpora: Sequence[str] | None = None, force: bool = False
) -> list[Activation]:
    """Make a spec the one that readers of corpora use: all of them at once, or none.

    Whoever publishes at that moment waits: the check for missing entries and the change are one transaction.

    Args:
        database: Where corpora are.
        spec_id: The spec.
        corpora: Names of corpora; None for all that are filled for it.
        force: Accept what is missing, for instance documents that are dead.

    Raises:
        NotFound: There is no such corpus or spec.
        Conflict: Something is missing and `force` does not say that this is accepted; the message shows it.
    """
    with database.write() as connection:
        names = _corpora(connection, spec_id, corpora, states=_FILLED)
        return [_activate(connection, name, spec_id, force=force) for name in names]


def roll_back(database: Database, spec_id: str, *, corpora: Sequence[str] | None = None) -> list[Activation]:
    """Have readers use again what they used before. Nothing is checked: going back must always work.

    Args:
        database: Where corpora are.
        spec_id: The active spec that is to be left, or the retiring one to go back to.
        corpora: Names of corpora; None for all where it is one of these.

    Raises:
        NotFound: There is no such corpus or spec.
        Conflict: There is nothing to go back to.
    """
    with database.write() as connection:
        names = _corpora(connection, spec_id, corpora, states=(CorpusSpecState.ACTIVE, CorpusSpecState.RETIRING))
        return [_roll_back(connection, name, spec_id) for name in names]


def drop(database: Database, spec_id: str, *, corpora: Sequence[str] | None = None) -> list[str]:
    """Fill a spec no more and forget what its ledger says; return the corpora that were filled for it.

    Its entries go with the next garbage collection. The ledger is cleared after the decision, in slices; a drop that
    was cut short is finished by dropping again.

    Args:
        database: Where corpora are.
        spec_id: The spec.
        corpora: Names of corpora; None for all, and the spec itself counts as dropped then.

    Raises:
        NotFound: There is no such corpus or spec.
        Conflict: It is the active one of a corpus.
    """
    with database.write() as connection:
        _require_spec(connection, spec_id)
        states = tuple(CorpusSpecState)
        names = corpora_with(connection, spec_id, states) if corpora is None else sorted(set(corpora))
        held = [hold_spec_set(connection, name) for name in names]
        for corpus in held:
            end_filling(connection, corpus, spec_id)
        if corpora is None:
            connection.execute(update(SpecRow).where(SpecRow.id == spec_id).values(dropped_at=now_ms()))
    for corpus in held:
        while _clear_ledger(database, corpus.pk, spec_id):
            pass
    return names


def _corpora(
    connection: Connection, spec_id: str, chosen: Sequence[str] | None, *, states: tuple[CorpusSpecState, ...]
) -> list[str]:
    _require_spec(connection, spec_id)
    names = corpora_with(connection, spec_id, states) if chosen is None else sorted(set(chosen))
    if not names:
        wanted = " or ".join(states)
        raise Conflict(f"spec {spec_id} is {wanted} in no corpus: `forefill spec build {spec_id} --corpus NAME`")
    return names


def _require_spec(connection: Connection, spec_id: str) -> None:
    if connection.execute(select(SpecRow.id).where(SpecRow.id == spec_id)).first() is None:
        raise NotFound(f"there is no spec {spec_id!r}")


def _activate(connection: Connection, name: str, spec_id: str, *, force: bool) -> Activation:
    corpus = hold_spec_set(connection, name)
    state = spec_state(connection, corpus.pk, spec_id)
    if state is CorpusSpecState.ACTIVE:
        return Activation(name, spec_id, _NOTHING)
    if state not in _FILLED:
        raise Conflict(
            f"corpus {name!r} is not filled for spec {spec_id}: "
            f"`forefill spec build {spec_id} --corpus {name}` begins it"
        )
    missing = find_missing(connection, corpus.pk, spec_id, since=cache_epoch_at(connection))
    if not force:
        _require_filled(connection, corpus, spec_id, missing)
    activate_spec(connection, corpus, spec_id)
    return Activation(name, spec_id, missing)


def _require_filled(connection: Connection, corpus: Corpus, spec_id: str, missing: Missing) -> None:
    if missing.documents:
        shown = ", ".join(repr(each) for each in missing.examples)
        dead = f"; {missing.dead:,} of them are dead and serve an older generation" if missing.dead else ""
        raise Conflict(
            f"{missing.documents:,} documents of corpus {corpus.name!r} have no entries under {spec_id} yet "
            f"({shown}{', …' if missing.documents > len(missing.examples) else ''}){dead}: wait for its backfill, or "
            "activate with force, and queries that need them tokenize"
        )
    if corpus.pk in corpora_of_unknown_coverage(connection):
        raise Conflict(
            f"the cache has evicted entries and nobody knows yet whether {spec_id} is whole in corpus {corpus.name!r}: "
            "wait for the verification that has started, or activate with force"
        )


def _roll_back(connection: Connection, name: str, spec_id: str) -> Activation:
    corpus = hold_spec_set(connection, name)
    leaves = spec_state(connection, corpus.pk, spec_id) is CorpusSpecState.ACTIVE
    target = spec_before(connection, corpus) if leaves else spec_id
    missing = find_missing(connection, corpus.pk, target, since=cache_epoch_at(connection))
    activate_spec(connection, corpus, target)
    return Activation(name, target, missing)


def _clear_ledger(database: Database, corpus_pk: int, spec_id: str) -> int:
    """Delete some rows of a dropped spec's ledger; none if it is built again by now."""
    mine = (LedgerRow.corpus_pk == corpus_pk, LedgerRow.spec_id == spec_id)
    with database.write() as connection:
        if spec_state(connection, corpus_pk, spec_id) is not CorpusSpecState.DROPPED:
            return 0
        some = select(LedgerRow.document_pk).where(*mine).limit(_SLICE)
        return rows_affected(connection.execute(delete(LedgerRow).where(*mine, LedgerRow.document_pk.in_(some))))
