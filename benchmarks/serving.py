"""A small corpus really published, embeddings and all, behind one API process."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.corpus import Document
from benchmarks.filling import AS_DEPLOYED
from tests.support.processes import Process
from tests.support.stack import Stack

CORPUS = "bench"


@contextmanager
def serving_stack(folder: Path, documents: Sequence[Document]) -> Iterator[Stack]:
    """Start a stack and ingest documents; the API is the caller's to start."""
    file = folder / "documents.jsonl"
    lines = (json.dumps({"id": document.id, "text": document.text}) for document in documents)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with Stack(folder, database_url=f"sqlite:///{folder / 'bench.db'}", environment=AS_DEPLOYED) as stack:
        stack.start_dispatcher()
        stack.start_worker()
        run_id = stack.forefill("ingest", str(file), "--corpus", CORPUS, "--json")
        stack.wait_for_run(str(run_id["run_id"] if "run_id" in run_id else run_id["id"]), timeout_s=1800)
        yield stack


def start_search_app(stack: Stack) -> Process:
    """Start the API with its one more route, which only embeds and searches, and wait until it is ready."""
    app = stack.processes.start_module("benchmarks.search_app", env=stack.environment)
    app.wait_for_output(r"api\.started", timeout_s=60)
    return app


def short(documents: Sequence[Document], *, count: int, most_chars: int = 20_000) -> list[Document]:
    """Return so many documents, spread over those given, none longer than a few pages."""
    step = max(1, len(documents) // count)
    return [Document(each.id, each.text[:most_chars]) for each in documents[::step]][:count]
