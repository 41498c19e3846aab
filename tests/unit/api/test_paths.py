from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.paths import DocumentId, RawPaths, decode_segment, require_possible_corpus
from pipeline.errors import InvalidInput, NotFound


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_survives_its_encoding(text: str) -> None:
    assert decode_segment(quote(text, safe="")) == text
    assert decode_segment(quote(text, safe="/")) == text


@pytest.mark.parametrize(
    ("raw", "decoded"), [("a+b", "a+b"), ("%2B", "+"), ("%252F", "%2F"), ("%zz", "%zz"), ("100%", "100%")]
)
def test_an_address_is_decoded_once(raw: str, decoded: str) -> None:
    assert decode_segment(raw) == decoded


@pytest.mark.parametrize("raw", ["%FF", "%C3%28", "%ED%A0%80", "\xfc"])
def test_bytes_that_are_not_utf_8_are_refused(raw: str) -> None:
    with pytest.raises(InvalidInput):
        decode_segment(raw)


@pytest.mark.parametrize("name", ["", "A", "a/b", "a\0", "-a", "a" * 64, "\ud800"])
def test_no_store_is_asked_for_a_corpus_that_cannot_be(name: str) -> None:
    with pytest.raises(NotFound):
        require_possible_corpus(name)


def test_a_route_sees_the_path_as_it_was_sent() -> None:
    app = FastAPI(redirect_slashes=False)

    @app.get("/documents/{document_id:path}")
    async def show(document_id: DocumentId) -> dict[str, Any]:
        return {"id": document_id}

    app.add_middleware(RawPaths)
    client = TestClient(app)
    for raw, document_id in (("a%2Fb", "a/b"), ("a/b/", "a/b/"), ("a%0Ab", "a\nb"), ("%252F", "%2F")):
        assert client.get(f"/documents/{raw}").json() == {"id": document_id}
    assert client.get("/documents%2Fa").status_code == 404
