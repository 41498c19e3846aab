"""Corpora: creating, reading, changing and dropping them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from pipeline.database import insert_missing, now_ms, rows_affected
from pipeline.documents.tables import CorpusRow, CorpusSpecRow, DocumentRow
from pipeline.errors import Conflict, NotFound
from pipeline.tokenizers.tables import SpecRow

DEFAULT_BUCKETS = 16
"""At most this many workers change one corpus at a time, per queue."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """One corpus as its row says."""

    pk: int
    name: str
    collection: str
    splitter: str
    embedder: str
    schedule: str | None
    timezone: str
    buckets: int
    spec_set_version: int


@dataclass(frozen=True, slots=True)
class CorpusSpec:
    """A spec that a corpus is filled for."""

    spec_id: str
    fingerprint: str
    status: str
    caching_enabled: bool
    enabled_at: int | None
    """When caching was enabled again last, in milliseconds since 1970; None if it never was off."""


_COLUMNS = (
    CorpusRow.pk,
    CorpusRow.name,
    CorpusRow.collection,
    CorpusRow.splitter,
    CorpusRow.embedder,
    CorpusRow.schedule,
    CorpusRow.timezone,
    CorpusRow.buckets,
    CorpusRow.spec_set_version,
)


def find_corpus(connection: Connection, name: str) -> Corpus | None:
    """Return the corpus of that name, if there is one."""
    row = connection.execute(select(*_COLUMNS).where(CorpusRow.name == name, CorpusRow.dropped_at.is_(None))).first()
    return Corpus(*row) if row else None


def get_corpus(connection: Connection, name: str) -> Corpus:
    """Return the corpus of that name.

    Raises:
        NotFound: There is none.
    """
    corpus = find_corpus(connection, name)
    if corpus is None:
        raise NotFound(f"there is no corpus {name!r}")
    return corpus


def hold_corpus(connection: Connection, name: str) -> Corpus:
    """Return the corpus of that name and keep it from being dropped until this transaction ends.

    A drop that began first is waited for, and then there is no such corpus.

    Raises:
        NotFound: There is none.
    """
    found = select(CorpusRow.pk).where(CorpusRow.name == name, CorpusRow.dropped_at.is_(None))
    connection.execute(found.with_for_update(read=True, key_share=True))
    return get_corpus(connection, name)


def get_corpus_by_pk(connection: Connection, pk: int) -> Corpus:
    """Return the corpus of a row, dropped ones too.

    Raises:
        NotFound: There is none.
    """
    row = connection.execute(select(*_COLUMNS).where(CorpusRow.pk == pk)).first()
    if row is None:
        raise NotFound(f"there is no corpus row {pk}")
    return Corpus(*row)


def list_corpora(
    connection: Connection, *, after: str = "", limit: int | None = None, names: Sequence[str] | None = None
) -> list[Corpus]:
    """Return corpora ordered by name, those after a name; with `names` only those of these that there are."""
    statement = select(*_COLUMNS).where(CorpusRow.dropped_at.is_(None), CorpusRow.name > after).order_by(CorpusRow.name)
    if names is not None:
        statement = statement.where(CorpusRow.name.in_(names))
    return [Corpus(*row) for row in connection.execute(statement.limit(limit))]


def create_corpus(
    connection: Connection,
    name: str,
    *,
    spec_id: str,
    splitter: str,
    embedder: str,
    schedule: str | None = None,
    timezone: str = "UTC",
) -> Corpus:
    """Create a corpus with one active spec, unless another writer just did; return what is there.

    Two first writes to one name race here: the unique name settles it, and the loser takes the winner's corpus.
    """
    now = connection.execute(select(now_ms())).scalar_one()
    values = {
        "name": name,
        "collection": f"{name}.creating",
        "splitter": splitter,
        "embedder": embedder,
        "schedule": schedule,
        "timezone": timezone,
        "buckets": DEFAULT_BUCKETS,
        "spec_set_version": 1,
        "created_at": now,
    }
    created = insert_missing(connection, CorpusRow.metadata.tables["corpora"], [values], returning=["pk"])
    for (pk,) in created:
        connection.execute(update(CorpusRow).where(CorpusRow.pk == pk).values(collection=f"{name}.{pk}"))
        connection.execute(
            insert(CorpusSpecRow).values(
                corpus_pk=pk,
                spec_id=spec_id,
                status="active",
                caching_enabled=True,
                created_at=now,
                activated_at=now,
            )
        )
    return get_corpus(connection, name)


def change_corpus(connection: Connection, corpus: Corpus, **values: str | None) -> Corpus:
    """Change columns of a corpus; splitter and embedder only while it has no documents.

    Raises:
        Conflict: The splitter or embedder of a filled corpus would change.
    """
    moves_cuts = any(values.get(name, getattr(corpus, name)) != getattr(corpus, name) for name in _FIXED_ONCE_FILLED)
    if moves_cuts and count_documents(connection, corpus.pk):
        raise Conflict(f"corpus {corpus.name!r} has documents: its splitter and embedder cannot change")
    if values:
        connection.execute(update(CorpusRow).where(CorpusRow.pk == corpus.pk).values(**values))
    return get_corpus_by_pk(connection, corpus.pk)


_FIXED_ONCE_FILLED = ("splitter", "embedder")


def count_documents(connection: Connection, corpus_pk: int) -> int:
    """Return how many documents a corpus has, deleted ones included."""
    statement = select(func.count()).select_from(DocumentRow).where(DocumentRow.corpus_pk == corpus_pk)
    return int(connection.execute(statement).scalar_one())


def mark_dropped(connection: Connection, corpus: Corpus) -> None:
    """Give the name free; the rows go later, in slices, by a maintenance job. Requests that hold it are waited for.

    Raises:
        NotFound: Somebody else has just dropped it.
    """
    dropped = (
        update(CorpusRow)
        .where(CorpusRow.pk == corpus.pk, CorpusRow.dropped_at.is_(None))
        .values(name=f"{corpus.name}#{corpus.pk}", dropped_at=now_ms(), schedule=None)
    )
    if not rows_affected(connection.execute(dropped)):
        raise NotFound(f"there is no corpus {corpus.name!r}")


def filled_specs(connection: Connection, corpus_pk: int) -> list[CorpusSpec]:
    """Return the specs that every publication must write entries for, the active one first."""
    statement = (
        select(
            CorpusSpecRow.spec_id,
            SpecRow.fingerprint,
            CorpusSpecRow.status,
            CorpusSpecRow.caching_enabled,
            CorpusSpecRow.enabled_at,
        )
        .join(SpecRow, SpecRow.id == CorpusSpecRow.spec_id)
        .where(CorpusSpecRow.corpus_pk == corpus_pk, CorpusSpecRow.status != "dropped")
        .order_by((CorpusSpecRow.status != "active"), CorpusSpecRow.spec_id)
    )
    return [CorpusSpec(*row) for row in connection.execute(statement)]
