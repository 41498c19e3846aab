"""Real multilingual and nasty text that may not be copied into the repository: read beside it, skipped without."""

import json
from pathlib import Path

import pytest

from pipeline.context import assemble, prompt_ids
from pipeline.tokenizers import load_spec
from tests.unit.context.builders import all_found
from tests.unit.context.test_assembly import NO_LIMIT, written_out
from tests.unit.tokenizers.reference import SPECS, official

SHARED = Path(__file__).parents[4] / "shared" / "data"


def texts_of(name: str) -> list[str]:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs the development data beside the checkout: ../shared/data/{name}")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("spec_id", SPECS)
@pytest.mark.parametrize("name", ["xquad", "blns"])
def test_every_document_and_question_has_reference_ids(spec_id: str, name: str) -> None:
    spec = load_spec(spec_id)
    documents = texts_of(f"{name}/docs.jsonl")
    questions = texts_of(f"{name}/queries.jsonl")[::20] or documents
    passages = [text.strip() for text in documents if text.strip()]
    contexts = [passages[start : start + 5] for start in range(0, len(passages), 5)]
    for index in range(max(len(contexts), len(questions))):
        context, question = contexts[index % len(contexts)], questions[index % len(questions)]
        assembled = assemble(spec, all_found(spec, context), max_context_tokens=NO_LIMIT)
        whole = official(spec.encoding).encode_ordinary(written_out(context, question))
        assert prompt_ids(spec, assembled, question).tolist() == whole
