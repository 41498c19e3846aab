"""Tables of corpora, documents, and the ledger of what is served and cached.

A document's newest accepted change is its *head* (`generation`). `published_generation` is the newest change whose
publication finished, deletions included; `served_generation` is what search can find, 0 for nothing.
"""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.database import Base, DocumentText, Identity, Millis
from pipeline.database.base import BIG_INTEGER


class CorpusRow(Base):
    """A named set of documents with its own splitter, embedder and active spec."""

    __tablename__ = "corpora"
    __table_args__ = (
        UniqueConstraint("name"),
        UniqueConstraint("collection"),
        CheckConstraint("buckets > 0", name="buckets_positive"),
        {"sqlite_autoincrement": True},
    )

    pk: Mapped[Identity]
    name: Mapped[DocumentText]
    """What callers say. A dropped corpus gives its name free at once: its row is renamed until it is gone."""
    collection: Mapped[DocumentText]
    """Qdrant collection; never used again after a drop, so that a late writer finds nothing to write to."""
    splitter: Mapped[str] = mapped_column(String(200))
    """Splitter's identity: library, version, sizes."""
    embedder: Mapped[str] = mapped_column(String(200))
    """Embedder's identity: model and dimension."""
    schedule: Mapped[str | None] = mapped_column(String(200))
    """Cron expression of the nightly re-tokenization."""
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    buckets: Mapped[int] = mapped_column(SmallInteger)
    """Event jobs of this corpus are spread over this many keys; fixed when it is made."""
    spec_set_version: Mapped[int] = mapped_column(Integer, default=1)
    """Grows whenever a spec starts or stops being filled, and when entries were dropped on purpose. Whoever settles by
    an older one writes his entries again first."""
    created_at: Mapped[Millis]
    dropped_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    generation_floor: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """Highest generation of any deleted document whose row was pruned: documents that are new begin above it."""


class CorpusSpecRow(Base):
    """Which specs a corpus is filled for, and which one its readers use."""

    __tablename__ = "corpus_specs"
    __table_args__ = (
        CheckConstraint("status IN ('building', 'ready', 'active', 'retiring', 'dropped')", name="status_known"),
        Index(
            "uq_corpus_specs_active",
            "corpus_pk",
            unique=True,
            sqlite_where=text("status = 'active'"),
            postgresql_where=text("status = 'active'"),
        ),
    )

    corpus_pk: Mapped[int] = mapped_column(ForeignKey("corpora.pk", ondelete="CASCADE"), primary_key=True)
    spec_id: Mapped[str] = mapped_column(ForeignKey("specs.id"), primary_key=True)
    status: Mapped[str] = mapped_column(String(16))
    caching_enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    """False after an audit found a difference, until an operator enables it again."""
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[Millis]
    activated_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    disabled_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """When caching was switched off last; NULL while it is on."""
    enabled_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """When an operator switched it on again last."""


class DocumentRow(Base):
    """One document's head and how far its publication has come."""

    __tablename__ = "documents"
    __table_args__ = (
        UniqueConstraint("corpus_pk", "id"),
        CheckConstraint("state IN ('pending', 'served', 'stale', 'dead', 'deleted')", name="state_known"),
        CheckConstraint("queue IN ('interactive', 'bulk')", name="queue_known"),
        CheckConstraint(
            "generation >= 1 AND published_generation <= generation AND served_generation <= published_generation",
            name="generations_ordered",
        ),
        CheckConstraint("(state = 'deleted') = (content_hash IS NULL)", name="deleted_iff_no_content"),
        CheckConstraint("(state = 'served') = (served_generation = generation)", name="served_iff_head_served"),
        CheckConstraint("state <> 'pending' OR served_generation = 0", name="pending_serves_nothing"),
        CheckConstraint("state <> 'stale' OR served_generation > 0", name="stale_serves_older"),
        CheckConstraint("state <> 'dead' OR last_error IS NOT NULL", name="dead_has_cause"),
        Index(
            "ix_documents_behind",
            "corpus_pk",
            "queue",
            "bucket",
            "accepted_at",
            sqlite_where=text("published_generation < generation AND state <> 'dead'"),
            postgresql_where=text("published_generation < generation AND state <> 'dead'"),
        ),
        Index("ix_documents_corpus_pk_pk", "corpus_pk", "pk"),
        Index(
            "ix_documents_deleted",
            "accepted_at",
            sqlite_where=text("state = 'deleted'"),
            postgresql_where=text("state = 'deleted'"),
        ),
        {"sqlite_autoincrement": True},
    )

    pk: Mapped[Identity]
    corpus_pk: Mapped[int] = mapped_column(ForeignKey("corpora.pk"))
    id: Mapped[DocumentText]
    """The caller's id, at most 512 bytes."""
    bucket: Mapped[int] = mapped_column(SmallInteger)
    """Hash of the id modulo the corpus' buckets."""
    queue: Mapped[str] = mapped_column(String(16))
    """Queue by which the head came."""
    state: Mapped[str] = mapped_column(String(16))
    generation: Mapped[int] = mapped_column(BIG_INTEGER)
    published_generation: Mapped[int] = mapped_column(BIG_INTEGER, default=0)
    served_generation: Mapped[int] = mapped_column(BIG_INTEGER, default=0)
    content_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """SHA-256 over text, metadata and splitter of the head; NULL when the head is a deletion."""
    text_bytes: Mapped[int] = mapped_column(BIG_INTEGER)
    """UTF-8 length of the head's text, so that work can be bounded before it is read."""
    accepted_at: Mapped[Millis]
    available_at: Mapped[Millis]
    """Not before this may a worker try again."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Failed attempts at the head."""
    last_error: Mapped[str | None] = mapped_column(Text)


class ContentRow(Base):
    """The head's text and metadata; no row when the head is a deletion."""

    __tablename__ = "document_contents"

    document_pk: Mapped[int] = mapped_column(ForeignKey("documents.pk"), primary_key=True, autoincrement=False)
    generation: Mapped[int] = mapped_column(BIG_INTEGER)
    attributes: Mapped[str] = mapped_column(Text)
    """The document's metadata as canonical JSON."""
    text: Mapped[str] = mapped_column(Text)


class ManifestRow(Base):
    """The passages of the served generation, packed: 24 bytes each (key 16, start 4, end 4, little endian)."""

    __tablename__ = "manifests"

    document_pk: Mapped[int] = mapped_column(ForeignKey("documents.pk"), primary_key=True, autoincrement=False)
    corpus_pk: Mapped[int] = mapped_column(ForeignKey("corpora.pk"), index=True)
    generation: Mapped[int] = mapped_column(BIG_INTEGER)
    passage_count: Mapped[int] = mapped_column(Integer)
    passages: Mapped[bytes] = mapped_column(LargeBinary)


class LedgerRow(Base):
    """The served passages of one document whose entries were written under one spec."""

    __tablename__ = "ledger"

    spec_id: Mapped[str] = mapped_column(ForeignKey("specs.id"), primary_key=True)
    document_pk: Mapped[int] = mapped_column(
        ForeignKey("documents.pk"), primary_key=True, autoincrement=False, index=True
    )
    corpus_pk: Mapped[int] = mapped_column(ForeignKey("corpora.pk"), index=True)
    generation: Mapped[int] = mapped_column(BIG_INTEGER)
    passage_count: Mapped[int] = mapped_column(Integer)
    token_count: Mapped[int] = mapped_column(BIG_INTEGER)
    token_counts: Mapped[bytes] = mapped_column(LargeBinary)
    """Tokens of each passage with its separator, uint32 little endian, in order."""
    written_at: Mapped[Millis]
    """Just before they were stored. Older than the cache's epoch means that they are lost."""


class PointIntentRow(Base):
    """Points a generation is about to write, recorded before the first of them is written."""

    __tablename__ = "point_intents"

    document_pk: Mapped[int] = mapped_column(ForeignKey("documents.pk"), primary_key=True, autoincrement=False)
    generation: Mapped[int] = mapped_column(BIG_INTEGER, primary_key=True, autoincrement=False)
    points: Mapped[bytes] = mapped_column(LargeBinary)
    """Point ids, 16 bytes each."""
    recorded_at: Mapped[Millis]


class IdempotencyKeyRow(Base):
    """The answer to a write that carried an Idempotency-Key, for 24 hours."""

    __tablename__ = "idempotency_keys"

    principal: Mapped[str] = mapped_column(String(64), primary_key=True)
    """API key's id; empty while there are no keys."""
    corpus: Mapped[str] = mapped_column(String(63), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    answer: Mapped[str] = mapped_column(Text)
    created_at: Mapped[Millis] = mapped_column(index=True)


class ApiKeyRow(Base):
    """One API key; its secret is nowhere."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("length(secret_hash) = 32", name="hash_length"),
        CheckConstraint("scopes <> '' AND corpora <> ''", name="grants_something"),
        CheckConstraint("revoked_at IS NULL OR revoked_at >= created_at", name="revoked_after_created"),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """Public part of the key; the principal of what it does."""
    name: Mapped[str] = mapped_column(String(100))
    """What people call it."""
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 of the secret."""
    scopes: Mapped[str] = mapped_column(String(64))
    """`query`, `ingest`, `admin`, sorted and parted by commas."""
    corpora: Mapped[str] = mapped_column(Text)
    """Names, sorted and parted by commas, or `*` for all."""
    created_at: Mapped[Millis]
    revoked_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
