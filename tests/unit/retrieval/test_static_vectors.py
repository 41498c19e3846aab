"""Static vectors: the mean of token vectors, from pinned files, without threads and without surprises."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.errors import ConfigurationError
from pipeline.retrieval import static_vectors
from pipeline.retrieval.bm25 import Bm25Terms
from pipeline.retrieval.embedding import INLINE_QUERY_CHARACTERS, HybridEmbedder
from pipeline.retrieval.static_vectors import DIMENSION, StaticVectors


@pytest.fixture(scope="module")
def encoder() -> StaticVectors:
    return StaticVectors.load()


@pytest.fixture(scope="module")
def embedder(encoder: StaticVectors) -> HybridEmbedder:
    return HybridEmbedder(dense=encoder, sparse=Bm25Terms())


def packaged(relative: str) -> Path:
    spec = find_spec("wordllama")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / relative


def test_a_vector_is_the_mean_of_its_tokens_vectors(encoder: StaticVectors) -> None:
    text = "Why are floating-point calculations so inaccurate?"
    ids = Tokenizer.from_file(str(packaged("tokenizers/l2_supercat_tokenizer_config.json"))).encode(
        text, add_special_tokens=False
    )
    header = packaged("weights/l2_supercat_256.safetensors").read_bytes()
    start = 8 + int.from_bytes(header[:8], "little")
    assert json.loads(header[8:start])["embedding.weight"]["shape"] == [32_000, DIMENSION]
    weights = np.frombuffer(header[start:], dtype="<f2").reshape(32_000, DIMENSION).astype(np.float64)
    mean = weights[ids.ids].mean(axis=0)
    np.testing.assert_allclose(encoder.encode([text])[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_near_meanings_are_nearer_than_far_ones(encoder: StaticVectors) -> None:
    question, near, far = encoder.encode(
        ["How do I copy a file?", "shutil duplicates files and directories", "The GIL serialises threads"]
    )
    assert question @ near > question @ far + 0.1


@settings(max_examples=50)
@given(texts=st.lists(st.text(max_size=80), max_size=5))
def test_each_text_has_one_unit_vector_whatever_its_company(encoder: StaticVectors, texts: list[str]) -> None:
    vectors = encoder.encode(texts)
    assert vectors.shape == (len(texts), DIMENSION)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], vector)


def test_a_text_without_tokens_gets_the_first_axis(encoder: StaticVectors) -> None:
    np.testing.assert_array_equal(encoder.encode([""])[0], np.eye(DIMENSION, dtype=np.float32)[0])


def test_special_tokens_in_a_text_are_text(encoder: StaticVectors) -> None:
    stripped, special = encoder.encode(["a", "a </s>"])
    assert stripped @ special < 0.99


def test_nothing_is_written_to_the_log_and_no_warning_raised_by_loading_encoding_and_forking() -> None:
    script = (
        "import logging, os\n"
        "from pipeline.retrieval.static_vectors import StaticVectors\n"
        "encoder = StaticVectors.load()\n"
        "encoder.encode(['before', 'fork'])\n"
        "child = os.fork()\n"
        "vectors = encoder.encode(['after', 'fork'] * 100)\n"
        "if not child: os._exit(0)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert not logging.getLogger().handlers\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(static_vectors._SHA256, static_vectors._WEIGHTS, "0" * 64)
    with pytest.raises(ConfigurationError, match="not the pinned file"):
        StaticVectors.load()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_vectors, "_PACKAGE", "no_such_package")
    with pytest.raises(ConfigurationError, match="no_such_package"):
        StaticVectors.load()


@pytest.mark.anyio
async def test_passages_and_questions_share_dense_vectors_and_terms(embedder: HybridEmbedder) -> None:
    text = "Copying files in Python"
    [passage] = embedder.embed_passages([text])
    [question] = await embedder.embed_queries([text])
    np.testing.assert_array_equal(passage.dense, question.dense)
    assert passage.sparse.indices == question.sparse.indices


@pytest.mark.anyio
async def test_much_text_is_embedded_beside_the_event_loop_alike(embedder: HybridEmbedder) -> None:
    texts = ["word " * (INLINE_QUERY_CHARACTERS // 8)] * 3 + ["", "odd \0 \ufffd"]
    together = await embedder.embed_queries(texts)
    for text, embedding in zip(texts, together, strict=True):
        [alone] = await embedder.embed_queries([text])
        np.testing.assert_array_equal(alone.dense, embedding.dense)
        assert alone.sparse == embedding.sparse
    await embedder.aclose()
    embedder.close()


def test_a_name_tells_weights_and_parameters(embedder: HybridEmbedder) -> None:
    assert embedder.name == ("wordllama-l2-supercat-256@64b47a2d+bm25-multilingual-english-k1.2-b0.75-avg100@v1")
    assert embedder.dimension == DIMENSION
