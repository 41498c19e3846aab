"""Every promised spec, with the vocabulary of a real model: generated contexts and real text, no wrong id."""

from functools import cache

import pytest

from pipeline.context import assemble, prompt_ids, validate_spec
from pipeline.documents.splitting import Splitter
from pipeline.errors import InvalidInput
from pipeline.framing import prompt_segments, reference_ids
from pipeline.tokenizers import TokenSpec
from tests.support import sample
from tests.support.real_tokenizers import REAL_SPECS, real_spec
from tests.unit.context.builders import all_found
from tests.unit.context.test_shared_corpora import texts_of

NO_LIMIT = 2**31
SHORT_CONTEXTS = 4_000
LONG_CONTEXTS = 24_000
LONG_CHUNKS = range(1, 8)
"""Seven chunks of six specs are 1,008,000 contexts."""


@cache
def real_passages() -> tuple[str, ...]:
    texts = [document["text"] for document in sample.documents()[:60]]
    return tuple(passage.text for text in texts for passage in Splitter().split(text))


def is_taken(spec: TokenSpec, text: str) -> bool:
    """Tell whether the vocabulary can spell a text: SmolLM2's lacks six control characters."""
    try:
        spec.tokenizer.encode(text)
    except InvalidInput:
        return False
    return True


@pytest.mark.timeout(600)
@pytest.mark.parametrize("spec_id", REAL_SPECS)
def test_thousands_of_generated_contexts_have_no_wrong_id(spec_id: str) -> None:
    report = validate_spec(real_spec(spec_id), contexts=SHORT_CONTEXTS, seed=0, corpus_texts=real_passages())
    assert (report.contexts, report.unsafe_passages) == (SHORT_CONTEXTS, 0)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunk", LONG_CHUNKS)
@pytest.mark.parametrize("spec_id", REAL_SPECS)
def test_a_million_generated_contexts_have_no_wrong_id(spec_id: str, chunk: int) -> None:
    report = validate_spec(real_spec(spec_id), contexts=LONG_CONTEXTS, seed=chunk, corpus_texts=real_passages())
    assert (report.contexts, report.unsafe_passages) == (LONG_CONTEXTS, 0)


@pytest.mark.parametrize("spec_id", REAL_SPECS)
@pytest.mark.parametrize(
    ("name", "every"), [("xquad", 5), ("blns", 1), pytest.param("xquad", 1, marks=pytest.mark.long)]
)
def test_real_texts_have_reference_ids_in_a_prompt(spec_id: str, name: str, every: int) -> None:
    spec = real_spec(spec_id)
    texts = [text.strip() for text in texts_of(f"{name}/docs.jsonl")[::every] if text.strip()]
    passages = [text for text in texts if is_taken(spec, text)]
    assert len(texts) - len(passages) == (1 if (name, spec_id) == ("blns", "smollm2/chatml") else 0)
    for start in range(0, len(passages), 5):
        context, question = passages[start : start + 5], passages[-start - 1]
        assembled = assemble(spec, all_found(spec, context), max_context_tokens=NO_LIMIT)
        whole = reference_ids(prompt_segments(spec.frame, context, question), spec.tokenizer)
        assert prompt_ids(spec, assembled, question).tolist() == whole.tolist()
