import json
from typing import Any

import numpy as np
import orjson
import pytest

from api.bodies import json_answer, parse_json


@pytest.mark.parametrize(
    "value",
    [None, True, 1, -1, 1.5, "", "ü😀", [], {}, {"a": [1, {"b": None}]}, 2**63 - 1, 2**64, -(2**70), "9" * 40],
)
def test_json_is_read_as_it_is(value: Any) -> None:
    parsed = parse_json(json.dumps(value).encode())
    assert parsed == value
    assert type(parsed) is type(value)


def test_lone_surrogates_are_kept_for_whoever_names_the_document() -> None:
    assert parse_json(b'{"id":"a","text":"\\ud800"}') == {"id": "a", "text": "\ud800"}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"{} {}", b"'a'", b"\xff", b'"\xed\xa0\x80"', b"NaN", b"[Infinity]", b"-Infinity", b"1e999"),
        *(b"[" * 5000, b"[" * 200_000 + b"1234567890123456789", b"9" * 5000, b"[1e999, 1234567890123456789]"),
        *(b'["\\ud800", NaN]', b"\xef\xbb\xbf{}", b'"\xff 1234567890123456789"'),
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(body)


def test_token_ids_are_written_from_their_array() -> None:
    ids = np.array([1, 2, 4_294_967_295], dtype=np.uint32)
    ids.setflags(write=False)
    assert orjson.loads(json_answer({"token_ids": ids}).body) == {"token_ids": [1, 2, 4_294_967_295]}
