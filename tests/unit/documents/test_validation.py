"""What is accepted as a document, and what the refusal names."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.validation import (
    MAX_ID_BYTES,
    MAX_METADATA_DEPTH,
    DocumentLimits,
    check_corpus_name,
    check_document,
    check_document_id,
)
from pipeline.errors import InvalidInput, TooLarge
from pipeline.settings import Settings

LIMITS = DocumentLimits(max_text_bytes=1000, max_metadata_bytes=200)


def refusal(document_id: object = "a", *, text: object = "text", metadata: object = None) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        check_document(document_id, text=text, metadata=metadata, limits=LIMITS)
    return caught.value


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"k": value}
    return value


def test_ordinary_documents_are_accepted() -> None:
    check_document("path/to:é", text="", metadata=None, limits=LIMITS)
    check_document("a", text="x" * 1000, metadata={"k": [1, 2.5, None, True, {"ä": "ö"}]}, limits=LIMITS)


@pytest.mark.parametrize("document_id", ["", " ", None, 1, b"a", ["a"]])
def test_an_id_must_be_a_string_with_something_in_it(document_id: object) -> None:
    assert "must be a string that is not empty" in str(refusal(document_id))


@pytest.mark.parametrize("document_id", ["a\0b", "\ud800"])
def test_an_id_must_be_storable_and_is_quoted_when_it_is_not(document_id: str) -> None:
    error = refusal(document_id)
    assert str(error).isascii()
    assert (error.item or "").isascii()


def test_an_id_is_measured_in_bytes() -> None:
    check_document_id("é" * (MAX_ID_BYTES // 2))
    assert isinstance(refusal("é" * (MAX_ID_BYTES // 2) + "a"), TooLarge)


@pytest.mark.parametrize("text", [None, 1, b"bytes", ["a"], "nul \0", "lone \udcff surrogate"])
def test_text_must_be_storable_text_and_the_item_is_named(text: object) -> None:
    error = refusal("doc-7", text=text)
    assert error.item == "doc-7"
    assert "doc-7" in str(error)
    assert not isinstance(error, TooLarge)


@pytest.mark.parametrize("text", ["x" * 1001, "é" * 501])
def test_text_over_the_limit_is_too_large(text: str) -> None:
    assert isinstance(refusal("doc-7", text=text), TooLarge)


def test_no_text_is_repeated_in_an_error() -> None:
    assert "secret" not in str(refusal(text="secret\0"))
    assert "secret" not in str(refusal(metadata={"k": "secret\0"}))


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        "text",
        0,
        {"k": "\0"},
        {"\0": 1},
        {"k": "\ud800"},
        {1: "one"},
        {"k": float("nan")},
        {"k": float("inf")},
        {"k": 2**63},
        {"k": (1, 2)},
        {"k": b"bytes"},
        {"k": object()},
    ],
)
def test_metadata_must_come_back_from_a_store_as_it_went_in(metadata: object) -> None:
    error = refusal("doc-7", metadata=metadata)
    assert error.item == "doc-7"
    assert not isinstance(error, TooLarge)


def test_metadata_depth_is_bounded_without_recursion() -> None:
    check_document("a", text="", metadata=nested(MAX_METADATA_DEPTH), limits=LIMITS)
    assert "nested" in str(refusal(metadata=nested(MAX_METADATA_DEPTH + 1)))
    assert "nested" in str(refusal(metadata=nested(100_000)))


@pytest.mark.parametrize("metadata", [{"k": "v" * 200}, {"v" * 201: 1}, {"k": [0] * 1000}, {"k": "é" * 99}])
def test_metadata_is_measured_as_json(metadata: dict[str, Any]) -> None:
    assert isinstance(refusal(metadata=metadata), TooLarge)


@pytest.mark.parametrize("name", ["a", "0", "python-docs_3", "a" * 63])
def test_corpus_names_are_accepted(name: str) -> None:
    check_corpus_name(name)


@pytest.mark.parametrize("name", ["", "../x", "A", "-a", "_a", "a.b", "a/b", "é", "a\n", "a" * 64, None, 1])
def test_other_corpus_names_are_refused(name: object) -> None:
    with pytest.raises(InvalidInput, match="corpus name"):
        check_corpus_name(name)


def test_limits_come_from_the_settings() -> None:
    settings = Settings(max_document_bytes=11, max_metadata_bytes=12)
    assert DocumentLimits.from_settings(settings) == DocumentLimits(max_text_bytes=11, max_metadata_bytes=12)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_accepted_metadata_survives_json_and_is_within_the_limit(metadata: dict[str, Any]) -> None:
    try:
        check_document("a", text="", metadata=metadata, limits=LIMITS)
    except InvalidInput:
        return
    encoded = orjson.dumps(metadata)
    assert len(encoded) <= LIMITS.max_metadata_bytes
    assert orjson.loads(encoded) == metadata
    assert not re.search(rb"(?<!\\)(\\\\)*\\u0000", encoded)


@given(st.text(st.characters()))
def test_accepted_text_is_utf8_without_nul(text: str) -> None:
    try:
        check_document("a", text=text, metadata=None, limits=LIMITS)
    except InvalidInput:
        return
    assert b"\0" not in text.encode()
