"""Token specs in SQL: recording one when it is first used or added, and saying which there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from pipeline.database import insert_missing, now_ms
from pipeline.documents.caching import list_caching_off
from pipeline.documents.tables import CorpusRow, CorpusSpecRow
from pipeline.errors import Conflict
from pipeline.framing import parse_frame
from pipeline.services.inspection import list_coverage
from pipeline.tokenizers import TokenSpec
from pipeline.tokenizers.tables import SpecRow, SpecTokenizerRow, TokenizerFileRow

_PROGRESS = ("dropped", "ready", "building", "retiring", "active")
"""What one corpus does with a spec, from nothing to everything: of several corpora the last one counts."""


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """The content of a `tokenizer.json`."""

    sha256: str
    content: bytes


@dataclass(frozen=True, slots=True)
class SpecReport:
    """One recorded spec, and what corpora do with it."""

    id: str
    source: str
    encoding: str
    frame: str
    """The frame's name."""
    fingerprint: str
    library: str
    status: str
    """The furthest that any corpus is with it; `ready` while none uses it, and when all who build it miss nothing."""
    coverage: dict[str, float | None]
    """Share of each corpus' passages that have an entry, 0 to 1; None while unknown."""
    caching_off: dict[str, str]
    """Why caching is off, by corpus; queries of the others use the cache."""
    created_at: int
    """Milliseconds since 1970-01-01 UTC."""


def ensure_spec(connection: Connection, spec: TokenSpec, *, tokenizer: TokenizerFile | None = None) -> bool:
    """Record a spec unless it is there already; return whether it was not.

    Two that record one spec race here: its id and its fingerprint are unique, and the loser compares.

    Args:
        connection: An open writing unit.
        spec: As this process built it.
        tokenizer: The file that a spec of source `hf` is made of.

    Raises:
        Conflict: A spec of that id is recorded with another fingerprint: this process would compute other ids. Or its
            ids are recorded under another name.
    """
    if (recorded := find_fingerprint(connection, spec.spec_id)) is not None:
        check_fingerprint(spec, recorded)
        revived = (SpecRow.id == spec.spec_id, SpecRow.dropped_at.is_not(None))
        connection.execute(update(SpecRow).where(*revived).values(dropped_at=None))
        return False
    row = {
        "id": spec.spec_id,
        "source": spec.tokenizer.source,
        "encoding": spec.encoding,
        "frame": spec.frame.canonical_json().decode(),
        "options": spec.tokenizer.identity.options,
        "fingerprint": spec.fingerprint,
        "golden": spec.golden.to_json(),
        "library": spec.tokenizer.library,
        "created_at": connection.execute(select(now_ms())).scalar_one(),
    }
    if not insert_missing(connection, SpecRow.metadata.tables["specs"], [row], returning=["id"]):
        check_fingerprint(spec, find_fingerprint(connection, spec.spec_id))
        return False
    if tokenizer is not None:
        _store_file(connection, spec.spec_id, tokenizer)
    return True


def find_fingerprint(connection: Connection, spec_id: str) -> str | None:
    """Return the fingerprint that a spec is recorded with, if it is."""
    return connection.execute(select(SpecRow.fingerprint).where(SpecRow.id == spec_id)).scalar_one_or_none()


def find_same_ids(connection: Connection, fingerprint: str) -> str | None:
    """Return the id of the spec with a fingerprint, if one is recorded."""
    return connection.execute(select(SpecRow.id).where(SpecRow.fingerprint == fingerprint)).scalar_one_or_none()


def check_fingerprint(spec: TokenSpec, recorded: str | None) -> None:
    """Compare a spec as this process computes it with the one recorded.

    Raises:
        Conflict: They differ, or its ids are recorded under another name.
    """
    if recorded is None:
        raise Conflict(f"the ids of spec {spec.spec_id} are recorded under another name already: use that one")
    if spec.fingerprint != recorded:
        raise Conflict(
            f"spec {spec.spec_id} is recorded with fingerprint {recorded}, but this process computes "
            f"{spec.fingerprint}: a library or frame changed; add it under a new name"
        )


def list_specs(
    connection: Connection,
    *,
    after: str = "",
    limit: int | None = None,
    only: str | None = None,
    corpora: Sequence[str] | None = None,
) -> list[SpecReport]:
    """Return recorded specs ordered by id.

    Args:
        connection: An open unit.
        after: Only ids greater than this.
        limit: At most this many.
        only: Only this id.
        corpora: Corpora that may be spoken of; None for all.
    """
    statement = select(SpecRow).where(SpecRow.id > after).order_by(SpecRow.id).limit(limit)
    if only is not None:
        statement = statement.where(SpecRow.id == only)
    statuses = _statuses(connection, corpora)
    coverage: dict[str, dict[str, float | None]] = {}
    for each in list_coverage(connection, corpora=corpora):
        coverage.setdefault(each.spec, {})[each.corpus] = each.share
    off: dict[str, dict[str, str]] = {}
    for switched in list_caching_off(connection, spec_id=only, corpora=corpora):
        off.setdefault(switched.spec_id, {})[switched.corpus] = switched.reason
    return [
        SpecReport(
            id=row.id,
            source=row.source,
            encoding=row.encoding,
            frame=parse_frame(row.frame).name,
            fingerprint=row.fingerprint,
            library=row.library,
            status=_status(row.dropped_at, statuses.get(row.id, []), coverage.get(row.id, {})),
            coverage=coverage.get(row.id, {}),
            caching_off=off.get(row.id, {}),
            created_at=row.created_at,
        )
        for row in connection.execute(statement.with_only_columns(*SpecRow.__table__.c))
    ]


def _status(dropped_at: int | None, statuses: Sequence[str], coverage: Mapping[str, float | None]) -> str:
    """Return the furthest that any corpus is with a spec; what is being built is `ready` once nothing is missing."""
    furthest = max(statuses, key=_PROGRESS.index, default="ready" if dropped_at is None else "dropped")
    if furthest == "building" and coverage and all(share == 1.0 for share in coverage.values()):
        return "ready"
    return furthest


def _statuses(connection: Connection, corpora: Sequence[str] | None) -> dict[str, list[str]]:
    statement = (
        select(CorpusSpecRow.spec_id, CorpusSpecRow.status)
        .join(CorpusRow, CorpusRow.pk == CorpusSpecRow.corpus_pk)
        .where(CorpusRow.dropped_at.is_(None))
    )
    if corpora is not None:
        statement = statement.where(CorpusRow.name.in_(corpora))
    found: dict[str, list[str]] = {}
    for spec_id, status in connection.execute(statement):
        found.setdefault(spec_id, []).append(status)
    return found


def _store_file(connection: Connection, spec_id: str, tokenizer: TokenizerFile) -> None:
    tables = SpecRow.metadata.tables
    file = {"sha256": tokenizer.sha256, "size_bytes": len(tokenizer.content), "content": tokenizer.content}
    insert_missing(connection, tables[TokenizerFileRow.__tablename__], [file], returning=["sha256"])
    link = {"spec_id": spec_id, "sha256": tokenizer.sha256}
    insert_missing(connection, tables[SpecTokenizerRow.__tablename__], [link], returning=["spec_id"])
