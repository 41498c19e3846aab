"""Bodies of requests: what is taken, strictly typed. `"2"`, `2.0` and `true` are no integers.

Documents may hold unknown fields, which are ignored; every other body may not, so that a misspelled option is an error
and not a surprise.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from pipeline.documents.readers import SourceDocument
from pipeline.documents.splitting import MAX_SIZE_CHARS, MIN_SIZE_CHARS, Splitter
from pipeline.documents.validation import DocumentLimits, check_document_id, shown
from pipeline.errors import InvalidInput, TooLarge
from pipeline.generation import MAX_ANSWER_TOKENS, MAX_TEMPERATURE
from pipeline.jobs.range_runs import RangeOptions
from pipeline.services.corpus_settings import NO_SCHEDULE, CorpusChange
from pipeline.services.generating import GenerateRequest
from pipeline.services.retrieving import MAX_TOP_K, RetrieveRequest
from pipeline.services.spec_adding import NewSpec

_MAX_FILTER_KEYS = 64
_MAX_FILTER_VALUES = 1000

_DOCUMENT = {
    "type": "object",
    "required": ["id", "text"],
    "properties": {
        "id": {"type": "string", "description": "1 to 512 bytes"},
        "text": {"type": "string"},
        "metadata": {"type": ["object", "null"], "additionalProperties": True},
    },
}


def _clean(text: str) -> str:
    if not _is_clean(text):
        raise ValueError("holds a NUL character or a lone surrogate")
    return text


def _is_clean(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _comparable(where: dict[str, Any]) -> dict[str, Any]:
    """Check a metadata filter: text, finite numbers of 64 bits and booleans, alone or in lists."""
    if len(where) > _MAX_FILTER_KEYS:
        raise ValueError(f"has more than {_MAX_FILTER_KEYS} keys")
    for key, wanted in where.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        if len(values) > _MAX_FILTER_VALUES:
            raise ValueError(f"{shown(key)} has more than {_MAX_FILTER_VALUES} values")
        if not _is_clean(key) or not all(_is_comparable(value) for value in values):
            raise ValueError(f"{shown(key)}: only text, booleans and numbers of 64 bits can be compared")
    return where


def _is_comparable(value: object) -> bool:
    match value:
        case bool():
            return True
        case str():
            return _is_clean(value)
        case int():
            return -(2**63) <= value < 2**63
        case float():
            return math.isfinite(value)
        case _:
            return False


CleanText = Annotated[str, AfterValidator(_clean)]

JsonOrText = Annotated[
    str | dict[str, Any],
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": True}]}),
]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SplitterBody(_Body):
    """A splitter by its size."""

    size_chars: int = Field(ge=MIN_SIZE_CHARS, le=MAX_SIZE_CHARS)
    """Characters a passage has at most."""


class CorpusBody(_Body):
    """A corpus as it should be; what is left out stays as it is, or becomes the default."""

    name: CleanText | None = None
    """The name in the address, if at all."""
    spec: CleanText | None = None
    splitter: SplitterBody | CleanText | None = None
    """Its size, or its identity as a GET shows it."""
    embedder: CleanText | None = None
    schedule: CleanText | None = None
    """Cron expression of five fields; null removes it."""
    timezone: CleanText | None = None
    next_run_at: CleanText | None = None
    """As a GET shows it; follows from the schedule, so what is said here changes nothing."""

    def to_change(self, name: str) -> CorpusChange:
        """Return what is to become of the corpus in the address.

        Raises:
            InvalidInput: The body names another corpus.
        """
        if self.name not in (None, name):
            raise InvalidInput(f"name {shown(self.name)} is not the one in the address, {shown(name)}", item="name")
        splitter = self.splitter
        removes_schedule = self.schedule is None and "schedule" in self.model_fields_set
        return CorpusChange(
            spec=self.spec,
            splitter=Splitter(splitter.size_chars).identity if isinstance(splitter, SplitterBody) else splitter,
            embedder=self.embedder,
            schedule=NO_SCHEDULE if removes_schedule else self.schedule,
            timezone=self.timezone,
        )


class SpecBody(_Body):
    """A token spec to add."""

    source: Literal["tiktoken", "hf"]
    encoding: CleanText | None = None
    """Of source `tiktoken`: a packaged encoding."""
    tokenizer_json: JsonOrText | None = None
    """Of source `hf`: the content of a `tokenizer.json`, as an object or as its text."""
    name: CleanText | None = None
    """Of source `hf`: what to call it; by default after its hash."""
    frame: JsonOrText
    """Name of a packaged frame, or a frame."""
    chat_template: JsonOrText | None = None
    """The model's own chat template, or its `tokenizer_config.json` as an object or as text: the frame must agree."""

    def to_spec(self) -> NewSpec:
        """Return what adding takes.

        Raises:
            InvalidInput: A field of the other source is given, or this one's is missing.
        """
        wanted, other = ("encoding", "tokenizer_json") if self.source == "tiktoken" else ("tokenizer_json", "encoding")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise InvalidInput(f"source {self.source} takes {wanted}, not {other}", item=wanted)
        return NewSpec(
            frame=self.frame if isinstance(self.frame, str) else _content(self.frame, "frame"),
            encoding=self.encoding,
            tokenizer=None if self.tokenizer_json is None else _content(self.tokenizer_json, "tokenizer_json"),
            name=self.name,
            chat_template=None if self.chat_template is None else _content(self.chat_template, "chat_template"),
        )


class SpecCorpusBody(_Body):
    """Where a spec changes."""

    corpus: CleanText | None = None
    """Null: wherever it can."""


class ActivateBody(SpecCorpusBody):
    """Where a spec is activated."""

    force: bool = False
    """Accept what is missing, for instance of documents that are dead: queries that need it tokenize."""


class BuildBody(_Body):
    """Where a spec is built."""

    corpus: CleanText


def _content(given: str | dict[str, Any], name: str) -> bytes:
    """Return the bytes of JSON that came as text or as an object."""
    try:
        return given.encode() if isinstance(given, str) else orjson.dumps(given)
    except (UnicodeEncodeError, orjson.JSONEncodeError) as error:
        raise InvalidInput(f"{name} holds text that is not UTF-8", item=name) from error


class DocumentsBody(BaseModel):
    """Documents to set."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    documents: Annotated[list[Any], WithJsonSchema({"type": "array", "minItems": 1, "items": _DOCUMENT})]

    def to_documents(self, *, max_documents: int, limits: DocumentLimits) -> list[SourceDocument]:
        """Return the documents, each checked.

        Raises:
            InvalidInput: One of them cannot be accepted; the error names it.
            TooLarge: One is, or they are too many.
        """
        _check_count(self.documents, name="documents", limit=max_documents)
        documents = []
        for position, fields in enumerate(self.documents):
            try:
                documents.append(SourceDocument.checked(fields, limits=limits))
            except InvalidInput as error:
                if error.item is not None:
                    raise
                place = f"documents[{position}]"
                raise InvalidInput(f"{place} {error}", item=place) from error
        _check_unique([document.id for document in documents])
        return documents


class IdsBody(_Body):
    """Documents to delete."""

    ids: Annotated[list[Any], WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": "string"}})]

    def to_ids(self, *, max_documents: int) -> list[str]:
        """Return the ids, each checked.

        Raises:
            InvalidInput: One of them cannot be an id, or comes twice.
            TooLarge: They are too many.
        """
        _check_count(self.ids, name="ids", limit=max_documents)
        for document_id in self.ids:
            check_document_id(document_id)
        _check_unique(self.ids)
        return list(self.ids)


class RunOptionsBody(_Body):
    """What a run is to do; each kind knows some of it."""

    only_changed: bool = False
    dry_run: bool = False
    sample: int | None = Field(default=None, ge=1, le=2**53)
    repair: bool = False

    def to_options(self) -> RangeOptions:
        """Return the options."""
        return RangeOptions(**self.model_dump())


class RunBody(_Body):
    """A run over a corpus."""

    kind: Literal["retokenize", "backfill", "verify", "gc"]
    corpus: CleanText
    spec: CleanText | None = None
    """Null: every spec that the corpus is filled for."""
    options: RunOptionsBody = RunOptionsBody()


class RetrieveBody(_Body):
    """One question."""

    corpus: str
    query: CleanText
    top_k: int = Field(5, ge=1, le=MAX_TOP_K)
    max_context_tokens: int | None = Field(None, ge=0, le=10_000_000)
    """Token budget of the context; the deployment's default when left out."""
    order: Literal["relevance", "stable"] = "relevance"
    """How passages stand in the prompt. `relevance` fills the budget with the beginning of the first that does not fit;
    `stable` leaves it out."""
    filter: (
        Annotated[
            dict[str, Any],
            AfterValidator(_comparable),
            WithJsonSchema({"type": "object", "additionalProperties": True}),
        ]
        | None
    ) = None
    """Metadata that passages must have: key to value, or to a list of allowed values."""
    score_threshold: float | None = Field(None, allow_inf_nan=False)
    include_text: bool = False
    """Whether to answer with the text, too."""
    include_prompt: bool = False
    """Whether to answer with the whole prompt: its ids, and its text if that is wanted."""
    spec: CleanText | None = None
    """Token spec to answer with; the corpus' active one when left out. What it has no entries for is tokenized."""

    def to_request(self, *, default_context_tokens: int) -> RetrieveRequest:
        """Return what the read path takes."""
        given = self.max_context_tokens
        return RetrieveRequest(
            corpus=self.corpus,
            query=self.query,
            top_k=self.top_k,
            max_context_tokens=default_context_tokens if given is None else given,
            order=self.order,
            where=self.filter,
            score_threshold=self.score_threshold,
            include_prompt=self.include_prompt,
            spec=self.spec,
        )


class GenerateBody(RetrieveBody):
    """One question for the engine."""

    max_tokens: int = Field(1024, ge=1, le=MAX_ANSWER_TOKENS)
    """Most tokens of the answer."""
    temperature: float | None = Field(None, ge=0, le=MAX_TEMPERATURE, allow_inf_nan=False)
    """0 is deterministic; left to the engine when left out."""
    stop: CleanText | list[CleanText] | None = None
    """Texts that end the answer."""
    stream: bool = False
    """Whether to answer with server-sent events."""
    return_token_ids: bool = False
    """Whether to answer with the ids of prompt and answer, too."""

    def to_generate_request(self, *, default_context_tokens: int) -> GenerateRequest:
        """Return what the generation service takes."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return GenerateRequest(
            retrieve=self.to_request(default_context_tokens=default_context_tokens),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            stop=tuple(stop),
        )


class RetrieveBatchBody(_Body):
    """Several questions, answered in their order."""

    queries: list[RetrieveBody] = Field(min_length=1)


def _check_count(items: Sequence[object], *, name: str, limit: int) -> None:
    if not items:
        raise InvalidInput(f"{name} is empty", item=name)
    if len(items) > limit:
        raise TooLarge(f"{name} has {len(items):,} entries, more than {limit:,}", item=name)


def _check_unique(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for document_id in ids:
        if document_id in seen:
            raise InvalidInput(f"document id {shown(document_id)} comes twice", item=document_id)
        seen.add(document_id)
