"""Token specs that were added and validated, as rows."""

from sqlalchemy import CheckConstraint, ForeignKey, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.database import Base, Millis
from pipeline.database.base import BIG_INTEGER


class SpecRow(Base):
    """One token spec: all that decides the ids, and what it was validated with."""

    __tablename__ = "specs"
    __table_args__ = (
        UniqueConstraint("fingerprint"),
        CheckConstraint("source IN ('tiktoken', 'hf')", name="source_known"),
        CheckConstraint("length(fingerprint) = 32", name="fingerprint_length"),
    )

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    """`ENCODING/FRAME`, for instance `o200k_base/plain`."""
    source: Mapped[str] = mapped_column(String(16))
    encoding: Mapped[str] = mapped_column(String(128))
    frame: Mapped[str] = mapped_column(Text)
    """The frame's data, JSON."""
    options: Mapped[str] = mapped_column(Text, default="{}")
    """Tokenizer options that change ids, JSON."""
    fingerprint: Mapped[str] = mapped_column(String(32))
    """First 128 bits of SHA-256 over everything above and the vocabulary, hex; part of every cache key."""
    golden: Mapped[str] = mapped_column(Text)
    """Golden texts and the ids computed when the spec was added, JSON."""
    library: Mapped[str] = mapped_column(String(128))
    """Library and version that validated it; recorded, not hashed."""
    created_at: Mapped[Millis]
    dropped_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """When it was dropped everywhere; adding or building it again clears this. The row stays: its id is never given to
    other ids."""


class TokenizerFileRow(Base):
    """The content of one `tokenizer.json`, uploaded when a spec was added. Never changed."""

    __tablename__ = "tokenizer_files"
    __table_args__ = (
        CheckConstraint("length(sha256) = 64", name="hash_length"),
        CheckConstraint("size_bytes > 0", name="not_empty"),
    )

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of the content, hex."""
    size_bytes: Mapped[int] = mapped_column(Integer)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class SpecTokenizerRow(Base):
    """Which file a spec of source `hf` is made of.

    A table of its own: SQLite changes a table that others refer to only by making it anew.
    """

    __tablename__ = "spec_tokenizers"

    spec_id: Mapped[str] = mapped_column(String(200), ForeignKey("specs.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), ForeignKey("tokenizer_files.sha256"))
