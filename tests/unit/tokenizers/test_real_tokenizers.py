"""The tokenizers of Qwen3 and Llama 3, rebuilt for these tests, against encoders that were not."""

from collections.abc import Callable
from functools import cache

import pytest
import tiktoken

from pipeline.services.spec_adding import NewSpec, build_new_spec
from pipeline.tokenizers import golden_texts, load_hf, require_same_as_file
from tests.support import sample
from tests.support.packages import package_folder
from tests.support.real_tokenizers import (
    LLAMA_PATTERN,
    llama3_tokenizer_json,
    qwen3_tokenizer_json,
    real_ranks,
    real_spec,
)
from tests.unit.context.test_shared_corpora import texts_of

FILES = {"qwen3": qwen3_tokenizer_json, "llama3": llama3_tokenizer_json}
SPECS = {"qwen3": "qwen3/chatml", "llama3": "llama3/llama3"}

Encode = Callable[[str], list[int]]


def qwen3_by_quicktok() -> Encode:
    """An encoder written anew, with normalization of its own."""
    package_folder("quicktok")
    import quicktok

    encoding = quicktok.get_encoding("qwen3")
    return lambda text: list(encoding.encode_ordinary(text))


def llama3_by_tiktoken() -> Encode:
    """What Meta's own code does with the vocabulary.

    quicktok's encoder is no reference here: it differs from this one on an eighth of xquad, where tokens that no merge
    leads to stand beside those that one does.
    """
    encoding = tiktoken.Encoding(
        "llama3", pat_str=LLAMA_PATTERN, mergeable_ranks=real_ranks("llama3"), special_tokens={}
    )
    return encoding.encode_ordinary


@cache
def reference(name: str) -> Encode:
    return {"qwen3": qwen3_by_quicktok, "llama3": llama3_by_tiktoken}[name]()


@pytest.mark.parametrize("name", FILES)
def test_golden_texts_and_the_sample_corpus_have_the_reference_ids(name: str) -> None:
    tokenizer = real_spec(SPECS[name]).tokenizer
    for text in (*golden_texts(), *(document["text"] for document in sample.documents()[:100])):
        assert tokenizer.encode(text).tolist() == reference(name)(text)


@pytest.mark.parametrize(
    ("corpus", "every"), [("xquad", 5), ("blns", 1), pytest.param("xquad", 1, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", FILES)
def test_real_text_has_the_reference_ids(name: str, corpus: str, every: int) -> None:
    tokenizer = real_spec(SPECS[name]).tokenizer
    for text in texts_of(f"{corpus}/docs.jsonl")[::every]:
        assert tokenizer.encode(text).tolist() == reference(name)(text)


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_the_library_makes_of_them(name: str) -> None:
    content = FILES[name]()
    require_same_as_file(load_hf(content, name=name), content, texts=golden_texts())


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_real_models_are_accepted_with_their_frame(name: str) -> None:
    frame = SPECS[name].partition("/")[2]
    spec, file = build_new_spec(NewSpec(tokenizer=FILES[name](), frame=frame, name=name))
    assert spec.spec_id == SPECS[name]
    assert file is not None


def test_the_sizes_are_the_published_ones() -> None:
    import json

    qwen3, llama3 = (json.loads(FILES[name]()) for name in ("qwen3", "llama3"))
    assert (len(qwen3["model"]["vocab"]), len(qwen3["model"]["merges"]), len(qwen3["added_tokens"])) == (
        151_643,
        151_387,
        26,
    )
    assert (len(llama3["model"]["vocab"]), len(llama3["model"]["merges"]), len(llama3["added_tokens"])) == (
        128_000,
        280_147,
        256,
    )
