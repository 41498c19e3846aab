"""The one reader of JSON: it changes nothing, refuses what would be lost without a word, and says where."""

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidInput
from pipeline.json_input import MAX_JSON_DEPTH, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    "value",
    [None, True, 1, -1, 1.5, "", "ü😀", [], {}, {"a": [1, {"b": None}]}, 2**63 - 1, 2**64, -(2**70), "9" * 40],
)
def test_json_is_read_as_it_is(value: Any) -> None:
    parsed = read_json(json.dumps(value).encode())
    assert parsed == value
    assert type(parsed) is type(value)


@given(VALUES)
def test_whatever_json_is_comes_in_as_the_standard_library_reads_it(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert read_json(text.encode()) == value


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:019.eE+-\\u da"tfn\n', max_size=40).map(str.encode))
def test_what_is_accepted_is_what_the_standard_library_accepts(data: bytes) -> None:
    with suppress(InvalidInput):
        value = read_json(data)
        assert value == json.loads(data.decode())


def test_lone_surrogates_are_kept_for_whoever_names_the_document() -> None:
    assert read_json(b'{"id":"a","text":"\\ud800"}') == {"id": "a", "text": "\ud800"}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"{} {}", b"'a'", b"\xff", b'"\xed\xa0\x80"', b"NaN", b"[Infinity]", b"-Infinity", b"1e999"),
        *(b"[" * 5000, b"[" * 200_000 + b"1234567890123456789", b"9" * 5000, b"[1e999, 1234567890123456789]"),
        *(b'["\\ud800", NaN]', b"\xef\xbb\xbf{}", b'"\xff 1234567890123456789"', b"\xff\xfe{\0}\0", b'"a\tb"'),
        *(b"1" * 220 + b"e99", b"9" * 309 + b".0", b"1E+0309", b"[-1e0400]", b'{"a": 1, "a": 1}', b'{"a": \xff}'),
    ],
)
def test_what_is_not_json_or_would_be_lost_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_json(body)
    assert caught.value.item is None
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (b"NaN", "is not JSON: it holds NaN"),
        (b"[-Infinity]", "is not JSON: it holds -Infinity"),
        (b'{"id": "inner", "n": 1e400}', "holds a number that is not finite"),
        (b"9" * 5000, "holds an integer of thousands of digits"),
        (b'{"k": 1, "k": 1}', "has the key 'k' twice"),
        (b'"\xff"', "holds bytes that are not UTF-8"),
        (b"[" * 300 + b"]" * 300, f"is nested more than {MAX_JSON_DEPTH} deep"),
        (b'["]\\"[",' * 9_999 + b'{"k":[1]}' + b"]" * 9_999, f"is nested more than {MAX_JSON_DEPTH} deep"),
    ],
)
def test_the_document_that_holds_what_is_refused_is_named(metadata: bytes, reason: str) -> None:
    document = b'{"id": "guilty", "text": "", "metadata": ' + metadata + b"}"
    for body in (document, b'{"documents": [{"id": "innocent", "text": ""}, ' + document + b"]}"):
        with pytest.raises(InvalidInput) as caught:
            read_json(body)
        assert (str(caught.value), caught.value.item) == (f"document 'guilty' {reason}", "guilty")


@pytest.mark.parametrize("body", [b"[" * 9_999, b"[" * 9_999 + b"]" * 9_998, b"[" * 9_999 + b"]" * 9_999 + b'"' * 99])
def test_what_is_deep_and_unfinished_is_no_json(body: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^is not JSON"):
        read_json(body)


def test_the_largest_numbers_and_what_only_looks_too_large_are_read() -> None:
    assert read_json(b"[1.7976931348623157e308, 5e-324, 1e-400]") == [1.7976931348623157e308, 5e-324, 0.0]
    assert read_json(b'"1e999"') == "1e999"
    assert math.copysign(1, read_json(b"-0.0")) == -1


def test_a_place_is_said() -> None:
    for body, place in ((b'{"a" 1}', "at column 6"), (b"[1,\n2,]", "at line 2, column 3"), (b"\xff", "at byte 0")):
        with pytest.raises(InvalidInput, match=place):
            read_json(body)
