"""What decides whether a change changes anything: the content hash; and where a document's work goes: its bucket."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.tokenizers import CANONICAL_FORM_VERSION


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """One accepted change of one document, ready to be stored."""

    id: str
    text: str | None
    """The new text; None is a deletion."""
    attributes: str
    """Metadata as canonical JSON (sorted keys)."""
    content_hash: bytes | None
    """None for a deletion."""

    @property
    def text_bytes(self) -> int:
        """UTF-8 length of the text."""
        return 0 if self.text is None else len(self.text.encode())


def text_change(document_id: str, *, text: str, metadata: Mapping[str, Any], splitter: str) -> DocumentChange:
    """Build the change that sets a document's text and metadata under a corpus' splitter."""
    attributes = orjson.dumps(dict(metadata), option=orjson.OPT_SORT_KEYS)
    digest = hash_fields(b"document-v1", text.encode(), attributes, splitter.encode(), b"%d" % CANONICAL_FORM_VERSION)
    return DocumentChange(id=document_id, text=text, attributes=attributes.decode(), content_hash=digest)


def deletion(document_id: str) -> DocumentChange:
    """Build the change that deletes a document."""
    return DocumentChange(id=document_id, text=None, attributes="{}", content_hash=None)


def hash_fields(*fields: bytes) -> bytes:
    """Return SHA-256 over length-framed fields, so that no two field lists share an input."""
    return hashlib.sha256(b"".join(map(framed, fields))).digest()


def framed(field: bytes) -> bytes:
    """Return a field with its length before it, 8 bytes little endian."""
    return len(field).to_bytes(8, "little") + field


def bucket_of(document_id: str, *, buckets: int) -> int:
    """Return the bucket whose event jobs handle a document."""
    return int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8], "little") % buckets
