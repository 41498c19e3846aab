"""Token specs in SQL: recording one when it is first used, and refusing one whose ids have changed."""

from sqlalchemy import Connection, select

from pipeline.database import insert_missing, now_ms
from pipeline.errors import Conflict
from pipeline.tokenizers import TokenSpec
from pipeline.tokenizers.tables import SpecRow


def ensure_spec(connection: Connection, spec: TokenSpec) -> None:
    """Record a spec unless it is there already.

    Raises:
        Conflict: A spec of that id is recorded with another fingerprint: this process would compute other ids.
    """
    if (recorded := _recorded(connection, spec)) is not None:
        check_fingerprint(spec, recorded)
        return
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
        check_fingerprint(spec, _recorded(connection, spec))


def _recorded(connection: Connection, spec: TokenSpec) -> str | None:
    return connection.execute(select(SpecRow.fingerprint).where(SpecRow.id == spec.spec_id)).scalar_one_or_none()


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
