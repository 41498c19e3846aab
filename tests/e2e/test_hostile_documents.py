"""Documents that hang or break their worker's tokenizer cost themselves, and what shares their job only time."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.documents.content import bucket_of
from pipeline.documents.corpora import get_corpus
from pipeline.documents.readers import SourceDocument
from pipeline.factory import open_ingestion
from pipeline.jobs.run_reports import ItemError, list_errors
from tests.support import hostile_worker
from tests.support.oracle import Published, check_published
from tests.support.stack import Stack

CORPUS = "docs"
WORKER = "tests.support.hostile_worker"
TIME_LIMIT_S = 6
LIMITS = {
    "FOREFILL_JOB_TIME_LIMIT_S": str(TIME_LIMIT_S),
    "FOREFILL_MAX_ATTEMPTS": "2",
    "FOREFILL_MAX_DELIVERIES": "2",
}


@pytest.fixture
def impatient_stack(sqlite_url: str) -> Iterator[Stack]:
    """Stores and the Qdrant owner; workers are killed after six seconds at a job."""
    with (
        tempfile.TemporaryDirectory(prefix="ff-e2e-") as folder,
        Stack(Path(folder), database_url=sqlite_url, environment=LIMITS) as made,
    ):
        yield made


def test_a_panicking_tokenizer_costs_its_document_and_no_worker(impatient_stack: Stack) -> None:
    stack = impatient_stack
    worker = stack.start_worker(module=WORKER)
    children = {child.pid for child in worker.children()}
    error = _ingest_with(stack, hostile_worker.PANICS)
    assert (error.stage, error.attempts) == ("tokenize", 1)
    assert error.error == "a library panicked"
    assert {child.pid for child in worker.children()} == children


def test_a_tokenizer_that_hangs_is_interrupted_and_its_document_put_off_until_it_is_given_up(
    impatient_stack: Stack,
) -> None:
    stack = impatient_stack
    worker = stack.start_worker(module=WORKER)
    children = {child.pid for child in worker.children()}
    error = _ingest_with(stack, hostile_worker.SLEEPS)
    assert (error.stage, error.attempts) == ("publish", 2)
    assert error.error == "it took longer than 5 s"
    assert {child.pid for child in worker.children()} == children
    _assert_others_were_served_first(stack)


@pytest.mark.parametrize("mark", [pytest.param(hostile_worker.DEAF, marks=pytest.mark.long), hostile_worker.LOCKED])
def test_a_tokenizer_that_hears_no_signal_is_killed_and_its_document_named_by_the_breadcrumb(
    impatient_stack: Stack, mark: str
) -> None:
    stack = impatient_stack
    worker = stack.start_worker(module=WORKER)
    error = _ingest_with(stack, mark)
    assert (error.stage, error.attempts) == ("worker", 2)
    assert error.error == "the worker died 2 times while publishing this document"
    _assert_others_were_served_first(stack)
    assert "Hard time limit (6.0s) exceeded" in worker.log()
    assert "Timed out waiting for UP" not in worker.log(), "a new child was killed while it loaded"


@pytest.mark.long
@pytest.mark.parametrize("mark", [hostile_worker.SLEEPS, hostile_worker.DEAF])
def test_a_night_passes_over_a_document_that_hangs_its_workers(impatient_stack: Stack, mark: str) -> None:
    stack = impatient_stack
    healthy = stack.start_worker()
    stack.start_dispatcher()
    run_id, documents = _accept(stack, mark)
    assert stack.wait_for_run(run_id).state == "succeeded"
    healthy.terminate()
    stack.start_worker(module=WORKER, name="hostile")
    night = stack.forefill("retokenize", "--corpus", CORPUS, "--json")
    report = stack.wait_for_run(night["id"], timeout_s=150)
    assert (report.state, report.totals["unchanged"], report.totals["dead"]) == ("partial", len(documents) - 1, 1)
    assert _only_error(stack, night["id"]).document_id == "bad"
    check_published(stack, CORPUS, {name: Published(text, 1) for name, text in documents.items()})


def _ingest_with(stack: Stack, mark: str) -> ItemError:
    """Publish a group with a marked document in its middle; assert that it alone is dead, and return why."""
    stack.start_dispatcher()
    run_id, documents = _accept(stack, mark)
    report = stack.wait_for_run(run_id, timeout_s=120)
    assert (report.state, report.totals["done"], report.totals["dead"]) == ("partial", len(documents) - 1, 1)
    return _only_error(stack, run_id)


def _assert_others_were_served_first(stack: Stack) -> None:
    statement = "SELECT max(updated_at) FROM run_items WHERE outcome = '{}'"
    with stack.database.read() as connection:
        served, buried = (connection.exec_driver_sql(statement.format(end)).scalar_one() for end in ("done", "dead"))
    assert served < buried


def _only_error(stack: Stack, run_id: str) -> ItemError:
    with stack.database.read() as connection:
        (error,) = list_errors(connection, run_id)
    assert error.document_id == "bad"
    return error


def _accept(stack: Stack, mark: str) -> tuple[str, dict[str, str]]:
    """Accept nine documents of one bucket, the fifth of them marked."""
    ingestion = open_ingestion(stack.settings, stack.database, nudge=lambda: None)
    run_id = ingestion.open(CORPUS, kind="ingest")
    with stack.database.read() as connection:
        buckets = get_corpus(connection, CORPUS).buckets
    bucket = bucket_of("bad", buckets=buckets)
    same = [name for name in map(str, range(10_000)) if bucket_of(name, buckets=buckets) == bucket][:8]
    documents = {name: f"The text of document {name}." for name in [*same[:4], "bad", *same[4:]]}
    documents["bad"] += f" {mark}"
    sources = [SourceDocument(id=name, text=text, metadata={}) for name, text in documents.items()]
    ingestion.add(run_id, CORPUS, sources, queue="interactive")
    ingestion.seal(run_id)
    return run_id, documents
