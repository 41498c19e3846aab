"""Adding a token spec: built, compared with its model's chat template, validated, and only then recorded.

Validation is fail closed: contexts made to break seams, and passages of the corpora there are, are assembled and
compared with their reference ids. Nothing of a spec that fails is stored.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from pipeline.context import ValidationReport, validate_spec
from pipeline.database import Database
from pipeline.documents.splitting import Splitter
from pipeline.documents.tables import ContentRow, CorpusRow, DocumentRow
from pipeline.errors import Conflict, ExactnessError, InvalidInput, TooLarge
from pipeline.framing import Frame, known_frames, packaged_frame, parse_frame
from pipeline.services.specs import TokenizerFile, check_fingerprint, ensure_spec, find_fingerprint, find_same_ids
from pipeline.services.template_checking import check_chat_template
from pipeline.tokenizers import (
    HfTokenizer,
    TokenSpec,
    build_spec,
    golden_texts,
    is_packaged,
    load_hf,
    load_spec,
    load_tiktoken,
    require_same_as_file,
)

VALIDATION_SEED = 20_260_101
"""Fixed, so that adding the same spec again tries the same contexts."""

MIN_CONTEXTS = 1_000
"""Fewer contexts prove nothing."""

_SAMPLED_DOCUMENTS = 64
_SAMPLED_PASSAGES = 512
_SAMPLED_CHARACTERS = 100_000
_MAX_FRAME_BYTES = 64 * 1024
_DEFAULT_NAME_HEX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSpec:
    """What a caller says about a spec; of `encoding` and `tokenizer` exactly one."""

    frame: str | bytes
    """Name of a packaged frame, or a frame's JSON."""
    encoding: str | None = None
    """A packaged encoding."""
    tokenizer: bytes | None = None
    """Content of a `tokenizer.json`."""
    name: str | None = None
    """What to call its encoding; by default after the content's hash."""
    chat_template: bytes | None = None
    """The model's own chat template, or its `tokenizer_config.json`: what the frame must agree with. Not recorded."""


@dataclass(frozen=True, slots=True)
class AddedSpec:
    """What became of adding a spec."""

    spec_id: str
    created: bool
    """Whether it was not there before."""
    report: ValidationReport | None
    """What was tried; None if it was there."""


def add_spec(
    database: Database,
    new: NewSpec,
    *,
    contexts: int,
    corpora: Sequence[str] | None = None,
    validate: Callable[[NewSpec, Sequence[str]], ValidationReport] | None = None,
    progress: Callable[[int], None] | None = None,
) -> AddedSpec:
    """Build, validate and record a spec; one that is recorded already is only compared.

    Args:
        database: Where it is recorded.
        new: The spec.
        contexts: Generated contexts to try, at least `MIN_CONTEXTS`.
        corpora: Corpora whose passages may be tried and shown; None for all.
        validate: Takes the place of validating in this process.
        progress: Called with the number of contexts done.

    Raises:
        InvalidInput: The file or frame is none, some ids would be wrong, or the chat template renders the prompt
            otherwise; the message shows the example.
        TooLarge: A file is over the limit.
        Conflict: The id is taken by another spec, or the same ids are recorded under another name.
    """
    if contexts < MIN_CONTEXTS:
        raise InvalidInput(f"a spec is validated with at least {MIN_CONTEXTS:,} contexts", item="contexts")
    spec, file = build_new_spec(new)
    if new.chat_template is not None:
        check_chat_template(spec, new.chat_template)
    with database.read() as connection:
        is_recorded = _is_recorded(connection, spec)
        texts = [] if is_recorded else sample_passages(connection, corpora=corpora)
    if is_recorded:
        with database.write() as connection:
            ensure_spec(connection, spec)  # it may have been dropped
        return AddedSpec(spec.spec_id, created=False, report=None)
    if validate is None:
        report = validate_new_spec(new, spec, contexts=contexts, corpus_texts=texts, progress=progress)
    else:
        report = validate(new, texts)
    with database.write() as connection:
        created = ensure_spec(connection, spec, tokenizer=file)
    return AddedSpec(spec.spec_id, created=created, report=report)


def build_new_spec(new: NewSpec) -> tuple[TokenSpec, TokenizerFile | None]:
    """Build a spec as a caller describes it, and the file to store with it; about a second.

    Raises:
        InvalidInput: Something of it is none, or the tokenizer does not cut at the frame's seams.
        TooLarge: The file is over the limit.
    """
    if (new.encoding is None) == (new.tokenizer is None):
        raise InvalidInput("a spec names either a packaged encoding or a tokenizer.json", item="encoding")
    if new.encoding is not None and new.name is not None:
        raise InvalidInput("a packaged encoding has its name already", item="name")
    frame = _frame(new.frame)
    try:
        if new.tokenizer is None:
            return _packaged(str(new.encoding), frame), None
        tokenizer = _uploaded(new.tokenizer, new.name)
        return build_spec(tokenizer, frame=frame), TokenizerFile(tokenizer.sha256, new.tokenizer)
    except ExactnessError as error:
        raise InvalidInput(f"refused: {error}", item="frame") from error


def validate_new_spec(
    new: NewSpec,
    spec: TokenSpec,
    *,
    contexts: int,
    corpus_texts: Sequence[str] = (),
    seed: int = VALIDATION_SEED,
    progress: Callable[[int], None] | None = None,
) -> ValidationReport:
    """Validate a spec; takes about half a millisecond a context. Equal seeds try equal contexts.

    Raises:
        InvalidInput: Some ids would be wrong; the message shows the smallest example found.
    """
    try:
        if new.tokenizer is not None and isinstance(spec.tokenizer, HfTokenizer):
            require_same_as_file(spec.tokenizer, new.tokenizer, texts=(*golden_texts(), *corpus_texts))
        return validate_spec(spec, contexts=contexts, seed=seed, corpus_texts=corpus_texts, progress=progress)
    except ExactnessError as error:
        raise InvalidInput(f"refused: {error}", item="frame") from error


def sample_passages(connection: Connection, *, corpora: Sequence[str] | None = None) -> list[str]:
    """Return some passages of the newest documents, of every corpus that may be read.

    Args:
        connection: An open unit.
        corpora: Names of those corpora; None for all.
    """
    statement = select(CorpusRow.pk).where(CorpusRow.dropped_at.is_(None)).order_by(CorpusRow.name)
    if corpora is not None:
        statement = statement.where(CorpusRow.name.in_(corpora))
    found = list(connection.execute(statement).scalars())
    passages: list[str] = []
    for pk in found:
        texts = connection.execute(
            select(func.substr(ContentRow.text, 1, _SAMPLED_CHARACTERS))
            .join(DocumentRow, DocumentRow.pk == ContentRow.document_pk)
            .where(DocumentRow.corpus_pk == pk)
            .order_by(DocumentRow.pk.desc())
            .limit(max(1, _SAMPLED_DOCUMENTS // len(found)))
        ).scalars()
        share = max(1, _SAMPLED_PASSAGES // len(found))
        passages += [passage.text for text in texts for passage in Splitter().split(text)][:share]
    return passages


def _is_recorded(connection: Connection, spec: TokenSpec) -> bool:
    """Return whether this very spec is recorded.

    Raises:
        Conflict: Its ids are recorded under another name, or its name for other ids.
    """
    same = find_same_ids(connection, spec.fingerprint)
    if same is not None and same != spec.spec_id:
        raise Conflict(f"the ids of spec {spec.spec_id} are recorded as {same} already: use that one")
    if same is None and (taken := find_fingerprint(connection, spec.spec_id)) is not None:
        check_fingerprint(spec, taken)
    return same is not None


def _frame(given: str | bytes) -> Frame:
    """Return a packaged frame by its name, or one of the caller's own.

    Raises:
        InvalidInput: It is none, or its name is that of another packaged frame.
    """
    if isinstance(given, str):
        return packaged_frame(given)
    if len(given) > _MAX_FRAME_BYTES:
        raise TooLarge(f"the frame is over {_MAX_FRAME_BYTES:,} bytes", item="frame")
    frame = parse_frame(given)
    if frame.name in known_frames() and frame != packaged_frame(frame.name):
        raise InvalidInput(f"frame {frame.name!r} is a packaged one with other content: use another name", item="frame")
    return frame


def _packaged(encoding: str, frame: Frame) -> TokenSpec:
    if is_packaged(f"{encoding}/{frame.name}"):
        return load_spec(f"{encoding}/{frame.name}")
    return build_spec(load_tiktoken(encoding), frame=frame)


def _uploaded(content: bytes, name: str | None) -> HfTokenizer:
    return load_hf(content, name=name or f"hf-{hashlib.sha256(content).hexdigest()[:_DEFAULT_NAME_HEX]}")
