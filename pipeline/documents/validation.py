"""The rules every document and corpus name must meet, the same for files, HTTP and the library.

They keep out what a later store would refuse or change without a word: PostgreSQL takes no NUL, UTF-8 has no lone
surrogates, JSON has neither NaN nor infinity, and payload integers have 64 bits.
"""

import math
import re
from dataclasses import dataclass
from typing import Self

import orjson

from pipeline.errors import InvalidInput, TooLarge
from pipeline.settings import Settings

MAX_ID_BYTES = 512
"""UTF-8 bytes of a document id."""

MAX_METADATA_DEPTH = 32
"""Objects and lists within one another in metadata, the outermost object counted."""

_CORPUS_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """How large one document may be."""

    max_text_bytes: int
    """UTF-8 bytes of its text."""

    max_metadata_bytes: int
    """Bytes of its metadata as compact JSON in UTF-8."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Take the limits this process was configured with."""
        return cls(max_text_bytes=settings.max_document_bytes, max_metadata_bytes=settings.max_metadata_bytes)


def check_corpus_name(name: object) -> None:
    """Accept a corpus name or say why not.

    Raises:
        InvalidInput: It is not 1 to 63 of `a-z 0-9 _ -` starting with a letter or digit.
    """
    if not isinstance(name, str) or _CORPUS_NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"corpus name {shown(name)} must be 1 to 63 characters of a-z, 0-9, _ and -, the first a letter or a digit",
            item=shown(name),
        )


def check_document_id(document_id: object) -> None:
    """Accept a document id or say why not.

    Raises:
        InvalidInput: It is no text, empty, or holds NUL or a lone surrogate.
        TooLarge: It is over `MAX_ID_BYTES`.
    """
    item = shown(document_id)
    if not isinstance(document_id, str) or not document_id.strip():
        raise InvalidInput(f"document id {item} must be a string that is not empty", item=item)
    _check_text(document_id, label=f"document id {item}", item=item, limit=MAX_ID_BYTES)


def check_document(document_id: object, *, text: object, metadata: object, limits: DocumentLimits) -> None:
    """Accept a document or say why not; the error's `item` is its id.

    Args:
        document_id: What the caller calls it.
        text: Its text; may be empty.
        metadata: A JSON object, or None for an empty one.
        limits: How large text and metadata may be.

    Raises:
        InvalidInput: Something in it cannot be stored as it is.
        TooLarge: Id, text or metadata are over their limit.
    """
    check_document_id(document_id)
    item, label = str(document_id), f"document {shown(document_id)}"
    if not isinstance(text, str):
        raise InvalidInput(f"{label}: text must be a string", item=item)
    _check_text(text, label=f"{label}: text", item=item, limit=limits.max_text_bytes)
    if metadata is not None:
        _check_metadata(metadata, label=f"{label}: metadata", item=item, limit=limits.max_metadata_bytes)


def shown(value: object) -> str:
    """Return a value as an error message may show it: quoted, escaped, short."""
    if not isinstance(value, str):
        return f"({type(value).__name__})"
    head = value[:_SHOWN_CHARACTERS]
    return ascii(head) if len(head) == len(value) else f"{head!a}…"


def _check_text(text: str, *, label: str, item: str, limit: int) -> None:
    if len(text) > limit:
        raise TooLarge(f"{label} is over {limit:,} bytes", item=item)
    if "\0" in text:
        raise InvalidInput(f"{label} holds a NUL character", item=item)
    try:
        size_bytes = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{label} holds a lone surrogate at character {error.start}", item=item) from error
    if size_bytes > limit:
        raise TooLarge(f"{label} is over {limit:,} bytes", item=item)


def _check_metadata(root: object, *, label: str, item: str, limit: int) -> None:
    """Walk a JSON object without recursion and refuse what would not come back from a store as it went in."""
    if not isinstance(root, dict):
        raise InvalidInput(f"{label} must be an object", item=item)
    pending: list[tuple[object, int]] = [(root, 1)]
    while pending:
        value, depth = pending.pop()
        if not isinstance(value, dict | list):
            _check_scalar(value, label=label, item=item, limit=limit)
            continue
        if depth > MAX_METADATA_DEPTH:
            raise InvalidInput(f"{label} is nested more than {MAX_METADATA_DEPTH} deep", item=item)
        if isinstance(value, dict):
            for key in value:
                _check_key(key, label=label, item=item, limit=limit)
        pending.extend((inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value))
    if len(orjson.dumps(root)) > limit:
        raise TooLarge(f"{label} is over {limit:,} bytes", item=item)


def _check_key(key: object, *, label: str, item: str, limit: int) -> None:
    if not isinstance(key, str):
        raise InvalidInput(f"{label} has a key that is no string", item=item)
    _check_text(key, label=label, item=item, limit=limit)


def _check_scalar(value: object, *, label: str, item: str, limit: int) -> None:
    match value:
        case None | bool():
            return
        case str():
            _check_text(value, label=label, item=item, limit=limit)
        case int():
            if not -(2**63) <= value < 2**63:
                raise InvalidInput(f"{label} holds an integer of more than 64 bits", item=item)
        case float():
            if not math.isfinite(value):
                raise InvalidInput(f"{label} holds a number that is not finite", item=item)
        case _:
            raise InvalidInput(f"{label} holds a {type(value).__name__}, which JSON has not", item=item)
