"""A simulated year of writes: rows stay bounded, and pruning costs little beside what it prunes."""

import random
import time
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select

from pipeline.database import Database
from pipeline.documents.tables import CorpusRow, DocumentRow, IdempotencyKeyRow
from pipeline.jobs.tables import RunItemRow, RunRow
from pipeline.services.retention import prune

DAY_MS = 86_400_000
WRITES_A_DAY = 50
LIVING = 150


@pytest.mark.long
def test_a_year_of_writes_leaves_no_more_rows_than_a_quarter(database: Database) -> None:
    """A tenth deletes a document that never comes back, a hundredth ends partial. SQL's times are simulated."""
    drawn = random.Random(7)  # no secret
    with database.write() as connection:
        corpus = {"name": "c", "collection": "c.1", "splitter": "s", "embedder": "e", "buckets": 16, "created_at": 0}
        connection.execute(insert(CorpusRow).values(pk=1, **corpus))
        connection.execute(insert(DocumentRow), [_document(pk + 1, served=True, at=0) for pk in range(LIVING)])
    pk, highest, spent_s = LIVING, 0, 0.0
    for day in range(1, 366):
        runs, items, documents = [], [], []
        for number in range(WRITES_A_DAY):
            at, run_id = day * DAY_MS + number * DAY_MS // WRITES_A_DAY, str(uuid4())
            is_partial, subject = drawn.random() < 0.01, drawn.randrange(LIVING) + 1
            if drawn.random() < 0.1:
                pk += 1
                subject = pk
                documents.append(_document(pk, served=False, at=at))
            runs.append(_run(run_id, state="partial" if is_partial else "succeeded", at=at))
            items.append(_item(run_id, subject, is_dead=is_partial, at=at))
        with database.write() as connection:
            if documents:
                connection.execute(insert(DocumentRow), documents)
            connection.execute(insert(RunRow), runs)
            connection.execute(insert(RunItemRow), items)
            key = {"principal": "", "corpus": "c", "body_hash": b"0" * 32, "answer": "{}", "created_at": day * DAY_MS}
            connection.execute(insert(IdempotencyKeyRow), [{**key, "key": run["id"]} for run in runs])
        began = time.process_time()
        prune(database, retention_days=30, now=(day + 1) * DAY_MS, budget_s=600)
        spent_s += time.process_time() - began
        highest = max(highest, _count(database, RunRow))
    assert highest <= WRITES_A_DAY * 32, "a month, and the few partial ones for three"
    assert _count(database, RunItemRow) <= WRITES_A_DAY * 32
    assert _count(database, DocumentRow) <= LIVING + WRITES_A_DAY * 0.15 * 32
    assert _count(database, IdempotencyKeyRow) <= 2 * WRITES_A_DAY
    assert spent_s / (365 * WRITES_A_DAY) < 0.05, "a second's write is pruned in far less than a second"


def _count(database: Database, table: Any) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _document(pk: int, *, served: bool, at: int) -> dict[str, object]:
    return {
        "pk": pk,
        "corpus_pk": 1,
        "id": f"d{pk}",
        "bucket": 0,
        "queue": "bulk",
        "state": "served" if served else "deleted",
        "generation": 3,
        "published_generation": 3,
        "served_generation": 3 if served else 0,
        "content_hash": b"0" * 32 if served else None,
        "text_bytes": 0,
        "accepted_at": at,
        "available_at": at,
    }


def _run(run_id: str, *, state: str, at: int) -> dict[str, object]:
    times = {"created_at": at, "started_at": at, "finished_at": at}
    return {"id": run_id, "kind": "ingest", "corpus_pk": 1, "state": state, "sealed": True, **times}


def _item(run_id: str, document_pk: int, *, is_dead: bool, at: int) -> dict[str, object]:
    outcome = {"outcome": "dead" if is_dead else "done", "error": "why" if is_dead else None}
    return {"run_id": run_id, "document_pk": document_pk, "generation": 3, **outcome, "updated_at": at}
