"""Switching caching on again after an audit switched it off: only once the cache and the assembler were looked at anew.

Entries: a verification with repair of the whole corpus, begun after the switch-off, must have gone through. Assembler
and tokenizer: the spec is validated again, with other generated contexts than before and passages of the corpus.
Nothing else switches caching on.
"""

import secrets
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, select

from pipeline.context import ValidationReport
from pipeline.database import Database
from pipeline.documents.caching import CachingOff, enable_caching, list_caching_off
from pipeline.documents.corpora import filled_specs, get_corpus
from pipeline.documents.tables import CorpusRow
from pipeline.documents.validation import shown
from pipeline.errors import Conflict, InvalidInput, NotFound
from pipeline.jobs.range_runs import RangeOptions
from pipeline.jobs.states import RunState
from pipeline.jobs.tables import RunRow
from pipeline.services.range_runs import start_range_run
from pipeline.services.spec_adding import NewSpec, build_new_spec, sample_passages, validate_new_spec
from pipeline.services.spec_loading import find_recorded
from pipeline.services.specs import check_fingerprint
from pipeline.telemetry.logs import get_logger
from pipeline.tokenizers.tables import TokenizerFileRow

_log = get_logger(__name__)

_REPAIR = RangeOptions(repair=True)
_THROUGH = (RunState.SUCCEEDED.value, RunState.PARTIAL.value)
_SEEDS = 2**32


def find_caching_off(database: Database, spec_id: str, *, corpora: Sequence[str] | None) -> list[CachingOff]:
    """Return where caching is off under a spec.

    Args:
        database: Where corpora are.
        spec_id: The spec.
        corpora: Names of corpora; None for all.

    Raises:
        NotFound: There is no such spec, or a corpus that was named is not filled for it.
    """
    with database.read() as connection:
        if find_recorded(connection, spec_id) is None:
            raise NotFound(f"there is no spec {shown(spec_id)}")
        for name in corpora or ():
            corpus = get_corpus(connection, name)
            if spec_id not in [filled.spec_id for filled in filled_specs(connection, corpus.pk)]:
                raise NotFound(f"corpus {name!r} is not filled for spec {shown(spec_id)}")
        return list_caching_off(connection, spec_id=spec_id, corpora=corpora)


def pending_verification(database: Database, off: CachingOff) -> str | None:
    """Return the run that must go through first, started if there was none; None if one went through.

    Raises:
        NotFound: The corpus is gone, or not filled for the spec any more.
    """
    with database.read() as connection:
        if _is_verified(connection, off):
            return None
    run_id = start_range_run(database, off.corpus, kind="verify", spec=off.spec_id, options=_REPAIR)
    with database.read() as connection:
        return None if _is_verified(connection, off) else run_id  # a run over nothing has ended


def validate_again(
    database: Database,
    spec_id: str,
    *,
    contexts: int,
    corpora: Sequence[str],
    validate: Callable[[NewSpec, Sequence[str], int], ValidationReport] | None = None,
    progress: Callable[[int], None] | None = None,
) -> ValidationReport:
    """Validate a recorded spec as if it were new, with contexts that were not tried before.

    Args:
        database: Where specs are.
        spec_id: The spec.
        contexts: Generated contexts to try.
        corpora: Corpora whose passages are tried, too.
        validate: Takes the place of validating in this process; given spec, passages and seed.
        progress: Called with the number of contexts done.

    Raises:
        Conflict: Some ids would be wrong, or this process computes others than recorded; the message shows the example.
    """
    with database.read() as connection:
        new, fingerprint = _as_new(connection, spec_id)
        texts = sample_passages(connection, corpora=corpora)
    seed = secrets.randbelow(_SEEDS)
    try:
        spec, _ = build_new_spec(new)
        check_fingerprint(spec, fingerprint)
        if validate is not None:
            return validate(new, texts, seed)
        return validate_new_spec(new, spec, contexts=contexts, corpus_texts=texts, seed=seed, progress=progress)
    except InvalidInput as error:
        raise Conflict(f"caching under {spec_id} stays off: {error}") from error


def enable(database: Database, off: CachingOff) -> None:
    """Switch caching on; call it when verification and validation went well.

    Raises:
        Conflict: It was switched off again meanwhile, or is not verified.
    """
    with database.write() as connection:
        if not (_is_verified(connection, off) and enable_caching(connection, off)):
            raise Conflict(
                f"caching of corpus {off.corpus!r} under {off.spec_id} was switched off again meanwhile: "
                "enable it once more, it will be verified anew"
            )
    _log.warning("caching.enabled", corpus=off.corpus, spec=off.spec_id)


def _is_verified(connection: Connection, off: CachingOff) -> bool:
    statement = (
        select(RunRow.id)
        .join(CorpusRow, CorpusRow.pk == RunRow.corpus_pk)
        .where(
            CorpusRow.name == off.corpus,
            CorpusRow.dropped_at.is_(None),
            RunRow.kind == "verify",
            RunRow.options == _REPAIR.to_json(),
            RunRow.spec_id.is_(None) | (RunRow.spec_id == off.spec_id),
            RunRow.state.in_(_THROUGH),
            RunRow.created_at >= off.disabled_at,
        )
        .limit(1)
    )
    return connection.execute(statement).first() is not None


def _as_new(connection: Connection, spec_id: str) -> tuple[NewSpec, str]:
    """Return a recorded spec as it would be added, and its fingerprint."""
    recorded = find_recorded(connection, spec_id)
    if recorded is None:
        raise NotFound(f"there is no spec {shown(spec_id)}")
    frame = recorded.frame.canonical_json()
    if recorded.tokenizer_sha256 is None:
        return NewSpec(frame=frame, encoding=recorded.encoding), recorded.fingerprint
    file = select(TokenizerFileRow.content).where(TokenizerFileRow.sha256 == recorded.tokenizer_sha256)
    content = bytes(connection.execute(file).scalar_one())
    return NewSpec(frame=frame, tokenizer=content, name=recorded.encoding), recorded.fingerprint
