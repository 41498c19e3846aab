"""The first schema: corpora, documents, runs, jobs, ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "corpora",
        sa.Column("pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("collection", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("splitter", sa.String(length=200), nullable=False),
        sa.Column("embedder", sa.String(length=200), nullable=False),
        sa.Column("schedule", sa.String(length=200), nullable=True),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("buckets", sa.SmallInteger(), nullable=False),
        sa.Column("spec_set_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dropped_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.CheckConstraint("buckets > 0", name=op.f("ck_corpora_buckets_positive")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_corpora")),
        sa.UniqueConstraint("collection", name=op.f("uq_corpora_collection")),
        sa.UniqueConstraint("name", name=op.f("uq_corpora_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column("corpus", sa.String(length=63), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("principal", "corpus", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "installation",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_installation")),
    )
    op.create_table(
        "leaderships",
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("lease_until", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_leaderships")),
    )
    op.create_table(
        "specs",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("encoding", sa.String(length=128), nullable=False),
        sa.Column("frame", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=32), nullable=False),
        sa.Column("golden", sa.Text(), nullable=False),
        sa.Column("library", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.CheckConstraint("source IN ('tiktoken', 'hf')", name=op.f("ck_specs_source_known")),
        sa.CheckConstraint("length(fingerprint) = 32", name=op.f("ck_specs_fingerprint_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_specs")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_specs_fingerprint")),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("queues", sa.String(length=200), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("seen_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "corpus_specs",
        sa.Column("corpus_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("spec_id", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("caching_enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("activated_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.CheckConstraint(
            "status IN ('building', 'ready', 'active', 'retiring', 'dropped')",
            name=op.f("ck_corpus_specs_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["corpus_pk"], ["corpora.pk"], name=op.f("fk_corpus_specs_corpus_pk_corpora"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["spec_id"], ["specs.id"], name=op.f("fk_corpus_specs_spec_id_specs")),
        sa.PrimaryKeyConstraint("corpus_pk", "spec_id", name=op.f("pk_corpus_specs")),
    )
    with op.batch_alter_table("corpus_specs", schema=None) as batch_op:
        batch_op.create_index(
            "uq_corpus_specs_active",
            ["corpus_pk"],
            unique=True,
            sqlite_where=sa.text("status = 'active'"),
            postgresql_where=sa.text("status = 'active'"),
        )

    op.create_table(
        "documents",
        sa.Column("pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("corpus_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("queue", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("published_generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("served_generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(length=32), nullable=True),
        sa.Column("text_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("accepted_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("available_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'deleted') = (content_hash IS NULL)", name=op.f("ck_documents_deleted_iff_no_content")
        ),
        sa.CheckConstraint(
            "(state = 'served') = (served_generation = generation)", name=op.f("ck_documents_served_iff_head_served")
        ),
        sa.CheckConstraint("queue IN ('interactive', 'bulk')", name=op.f("ck_documents_queue_known")),
        sa.CheckConstraint("state <> 'dead' OR last_error IS NOT NULL", name=op.f("ck_documents_dead_has_cause")),
        sa.CheckConstraint(
            "state <> 'pending' OR served_generation = 0", name=op.f("ck_documents_pending_serves_nothing")
        ),
        sa.CheckConstraint("state <> 'stale' OR served_generation > 0", name=op.f("ck_documents_stale_serves_older")),
        sa.CheckConstraint(
            "state IN ('pending', 'served', 'stale', 'dead', 'deleted')", name=op.f("ck_documents_state_known")
        ),
        sa.CheckConstraint(
            "generation >= 1 AND published_generation <= generation AND served_generation <= published_generation",
            name=op.f("ck_documents_generations_ordered"),
        ),
        sa.ForeignKeyConstraint(["corpus_pk"], ["corpora.pk"], name=op.f("fk_documents_corpus_pk_corpora")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_documents")),
        sa.UniqueConstraint("corpus_pk", "id", name=op.f("uq_documents_corpus_pk_id")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("documents", schema=None) as batch_op:
        batch_op.create_index(
            "ix_documents_behind",
            ["corpus_pk", "queue", "bucket", "accepted_at"],
            unique=False,
            sqlite_where=sa.text("published_generation < generation AND state <> 'dead'"),
            postgresql_where=sa.text("published_generation < generation AND state <> 'dead'"),
        )
        batch_op.create_index("ix_documents_corpus_pk_pk", ["corpus_pk", "pk"], unique=False)

    op.create_table(
        "schedules",
        sa.Column("pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("corpus_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("cron", sa.String(length=200), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["corpus_pk"], ["corpora.pk"], name=op.f("fk_schedules_corpus_pk_corpora")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_schedules")),
        sa.UniqueConstraint("corpus_pk", "kind", name=op.f("uq_schedules_corpus_pk_kind")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "document_contents",
        sa.Column(
            "document_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_pk"], ["documents.pk"], name=op.f("fk_document_contents_document_pk_documents")
        ),
        sa.PrimaryKeyConstraint("document_pk", name=op.f("pk_document_contents")),
    )
    op.create_table(
        "ledger",
        sa.Column("spec_id", sa.String(length=200), nullable=False),
        sa.Column(
            "document_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("corpus_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("passage_count", sa.Integer(), nullable=False),
        sa.Column("token_count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("token_counts", sa.LargeBinary(), nullable=False),
        sa.Column("written_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["corpus_pk"], ["corpora.pk"], name=op.f("fk_ledger_corpus_pk_corpora")),
        sa.ForeignKeyConstraint(["document_pk"], ["documents.pk"], name=op.f("fk_ledger_document_pk_documents")),
        sa.ForeignKeyConstraint(["spec_id"], ["specs.id"], name=op.f("fk_ledger_spec_id_specs")),
        sa.PrimaryKeyConstraint("spec_id", "document_pk", name=op.f("pk_ledger")),
    )
    with op.batch_alter_table("ledger", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ledger_corpus_pk"), ["corpus_pk"], unique=False)

    op.create_table(
        "manifests",
        sa.Column(
            "document_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("corpus_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("passage_count", sa.Integer(), nullable=False),
        sa.Column("passages", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["corpus_pk"], ["corpora.pk"], name=op.f("fk_manifests_corpus_pk_corpora")),
        sa.ForeignKeyConstraint(["document_pk"], ["documents.pk"], name=op.f("fk_manifests_document_pk_documents")),
        sa.PrimaryKeyConstraint("document_pk", name=op.f("pk_manifests")),
    )
    with op.batch_alter_table("manifests", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_manifests_corpus_pk"), ["corpus_pk"], unique=False)

    op.create_table(
        "point_intents",
        sa.Column(
            "document_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column(
            "generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("points", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["document_pk"], ["documents.pk"], name=op.f("fk_point_intents_document_pk_documents")),
        sa.PrimaryKeyConstraint("document_pk", "generation", name=op.f("pk_point_intents")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("corpus_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("spec_id", sa.String(length=200), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("sealed", sa.Boolean(), nullable=False),
        sa.Column("open_until", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("upper_bound", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("schedule_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("nominal_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("started_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("finished_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'partial', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_runs_ended_iff_finished"),
        ),
        sa.CheckConstraint(
            "kind IN ('ingest', 'delete', 'retokenize', 'backfill', 'verify', 'gc')", name=op.f("ck_runs_kind_known")
        ),
        sa.CheckConstraint("state <> 'failed' OR error IS NOT NULL", name=op.f("ck_runs_failed_has_cause")),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'paused', 'succeeded', 'partial', 'failed', 'cancelled')",
            name=op.f("ck_runs_state_known"),
        ),
        sa.CheckConstraint("sealed = (open_until IS NULL)", name=op.f("ck_runs_open_iff_not_sealed")),
        sa.ForeignKeyConstraint(["corpus_pk"], ["corpora.pk"], name=op.f("fk_runs_corpus_pk_corpora")),
        sa.ForeignKeyConstraint(
            ["schedule_pk"], ["schedules.pk"], name=op.f("fk_runs_schedule_pk_schedules"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["spec_id"], ["specs.id"], name=op.f("fk_runs_spec_id_specs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("schedule_pk", "nominal_at", name=op.f("uq_runs_schedule_pk_nominal_at")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index("ix_runs_corpus_pk_id", ["corpus_pk", "id"], unique=False)
        batch_op.create_index(
            "ix_runs_unfinished",
            ["state"],
            unique=False,
            sqlite_where=sa.text("finished_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL"),
        )

    op.create_table(
        "jobs",
        sa.Column("pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("queue", sa.String(length=16), nullable=False),
        sa.Column("corpus_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=True),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("range_start", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("range_end", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("cursor", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("fence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=True),
        sa.Column("delivery_id", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("breadcrumb", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("created_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("available_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("published_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("claimed_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("finished_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("(kind = 'event') = (bucket IS NOT NULL)", name=op.f("ck_jobs_event_iff_bucket")),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_jobs_running_iff_leased")),
        sa.CheckConstraint("(state = 'running') = (worker IS NOT NULL)", name=op.f("ck_jobs_running_iff_owned")),
        sa.CheckConstraint(
            "(state IN ('pending', 'running')) = (finished_at IS NULL)", name=op.f("ck_jobs_ended_iff_finished")
        ),
        sa.CheckConstraint(
            "kind IN ('event', 'drop') OR (run_id IS NOT NULL AND range_end IS NOT NULL)", name=op.f("ck_jobs_range")
        ),
        sa.CheckConstraint(
            "kind IN ('event', 'retokenize', 'backfill', 'verify', 'gc', 'drop')", name=op.f("ck_jobs_kind_known")
        ),
        sa.CheckConstraint("kind NOT IN ('event', 'drop') OR run_id IS NULL", name=op.f("ck_jobs_event_without_run")),
        sa.CheckConstraint("queue IN ('interactive', 'bulk', 'maintenance')", name=op.f("ck_jobs_queue_known")),
        sa.CheckConstraint("state <> 'dead' OR last_error IS NOT NULL", name=op.f("ck_jobs_dead_has_cause")),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'succeeded', 'partial', 'dead', 'cancelled')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.ForeignKeyConstraint(["corpus_pk"], ["corpora.pk"], name=op.f("fk_jobs_corpus_pk_corpora")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_jobs_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_jobs")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_jobs_unfinished",
            ["state", "queue", "available_at"],
            unique=False,
            sqlite_where=sa.text("finished_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL"),
        )
        batch_op.create_index(
            "uq_jobs_pending_event",
            ["corpus_pk", "queue", "bucket"],
            unique=True,
            sqlite_where=sa.text("kind = 'event' AND state = 'pending'"),
            postgresql_where=sa.text("kind = 'event' AND state = 'pending'"),
        )
        batch_op.create_index(
            "uq_jobs_range",
            ["run_id", "range_start"],
            unique=True,
            sqlite_where=sa.text("run_id IS NOT NULL"),
            postgresql_where=sa.text("run_id IS NOT NULL"),
        )
        batch_op.create_index(
            "uq_jobs_running_event",
            ["corpus_pk", "queue", "bucket"],
            unique=True,
            sqlite_where=sa.text("kind = 'event' AND state = 'running'"),
            postgresql_where=sa.text("kind = 'event' AND state = 'running'"),
        )

    op.create_table(
        "run_items",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column(
            "document_pk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("tokens", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.CheckConstraint("(outcome = 'dead') = (error IS NOT NULL)", name=op.f("ck_run_items_dead_iff_error")),
        sa.CheckConstraint(
            "outcome IN ('pending', 'done', 'unchanged', 'superseded', 'dead', 'cancelled')",
            name=op.f("ck_run_items_outcome_known"),
        ),
        sa.ForeignKeyConstraint(["document_pk"], ["documents.pk"], name=op.f("fk_run_items_document_pk_documents")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_items_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "document_pk", name=op.f("pk_run_items")),
    )
    with op.batch_alter_table("run_items", schema=None) as batch_op:
        batch_op.create_index("ix_run_items_run_id_outcome", ["run_id", "outcome"], unique=False)
        batch_op.create_index(
            "ix_run_items_waiting",
            ["document_pk"],
            unique=False,
            sqlite_where=sa.text("outcome = 'pending'"),
            postgresql_where=sa.text("outcome = 'pending'"),
        )


def downgrade() -> None:
    with op.batch_alter_table("run_items", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_run_items_waiting",
            sqlite_where=sa.text("outcome = 'pending'"),
            postgresql_where=sa.text("outcome = 'pending'"),
        )
        batch_op.drop_index("ix_run_items_run_id_outcome")

    op.drop_table("run_items")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_jobs_running_event",
            sqlite_where=sa.text("kind = 'event' AND state = 'running'"),
            postgresql_where=sa.text("kind = 'event' AND state = 'running'"),
        )
        batch_op.drop_index(
            "uq_jobs_range", sqlite_where=sa.text("run_id IS NOT NULL"), postgresql_where=sa.text("run_id IS NOT NULL")
        )
        batch_op.drop_index(
            "uq_jobs_pending_event",
            sqlite_where=sa.text("kind = 'event' AND state = 'pending'"),
            postgresql_where=sa.text("kind = 'event' AND state = 'pending'"),
        )
        batch_op.drop_index(
            "ix_jobs_unfinished",
            sqlite_where=sa.text("finished_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL"),
        )

    op.drop_table("jobs")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_runs_unfinished",
            sqlite_where=sa.text("finished_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL"),
        )
        batch_op.drop_index("ix_runs_corpus_pk_id")

    op.drop_table("runs")
    op.drop_table("point_intents")
    with op.batch_alter_table("manifests", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_manifests_corpus_pk"))

    op.drop_table("manifests")
    with op.batch_alter_table("ledger", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_ledger_corpus_pk"))

    op.drop_table("ledger")
    op.drop_table("document_contents")
    op.drop_table("schedules")
    with op.batch_alter_table("documents", schema=None) as batch_op:
        batch_op.drop_index("ix_documents_corpus_pk_pk")
        batch_op.drop_index(
            "ix_documents_behind",
            sqlite_where=sa.text("published_generation < generation AND state <> 'dead'"),
            postgresql_where=sa.text("published_generation < generation AND state <> 'dead'"),
        )

    op.drop_table("documents")
    with op.batch_alter_table("corpus_specs", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_corpus_specs_active",
            sqlite_where=sa.text("status = 'active'"),
            postgresql_where=sa.text("status = 'active'"),
        )

    op.drop_table("corpus_specs")
    op.drop_table("workers")
    op.drop_table("specs")
    op.drop_table("leaderships")
    op.drop_table("installation")
    op.drop_table("idempotency_keys")
    op.drop_table("corpora")
