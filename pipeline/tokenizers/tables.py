"""Token specs that were added and validated, as rows."""

from sqlalchemy import CheckConstraint, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.database import Base, Millis


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
