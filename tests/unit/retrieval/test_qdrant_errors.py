"""How answers of a Qdrant server become Forefill's errors."""

import httpx
import pytest
from qdrant_client import QdrantClient
from structlog.testing import capture_logs

from pipeline.errors import ConfigurationError, Conflict, ForefillError, InvalidInput, NotFound, TooLarge, Unavailable
from pipeline.retrieval.qdrant import QdrantWriter


def writer_answered_with(response: httpx.Response) -> QdrantWriter:
    transport = httpx.MockTransport(lambda _request: response)
    return QdrantWriter(QdrantClient("http://qdrant.invalid", check_compatibility=False, transport=transport))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, ConfigurationError),
        (403, ConfigurationError),
        (404, NotFound),
        (408, Unavailable),
        (409, Conflict),
        (413, TooLarge),
        (422, InvalidInput),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (507, Unavailable),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[ForefillError]) -> None:
    writer = writer_answered_with(httpx.Response(status, json={"status": {"error": "what went wrong"}}))
    with capture_logs() as logs, pytest.raises(ForefillError) as raised:
        writer.count("c")
    assert type(raised.value) is kind
    assert "what went wrong" not in str(raised.value)
    assert status == 404 or [event["said"] for event in logs] == ["what went wrong"]


def test_a_server_that_is_busy_says_when_to_come_back() -> None:
    busy = httpx.Response(429, headers={"Retry-After": "7"}, json={"status": {"error": "slow down"}})
    with pytest.raises(Unavailable, match="busy") as raised:
        writer_answered_with(busy).count("c")
    assert raised.value.retry_after_s == 7.0


@pytest.mark.parametrize("content", [b"", b"<html>bad gateway</html>", b"[]", b'{"status": "x"}', b"\xff"])
def test_an_error_in_no_known_shape_is_still_an_error_of_ours(content: bytes) -> None:
    with pytest.raises(Unavailable, match="502"):
        writer_answered_with(httpx.Response(502, content=content)).count("c")


@pytest.mark.parametrize("content", [b"", b"<html>", b"{}", b'{"result": {"count": "many"}}'])
def test_an_answer_that_is_none_is_unavailable(content: bytes) -> None:
    with pytest.raises(Unavailable):
        writer_answered_with(httpx.Response(200, content=content)).count("c")


def test_a_page_that_says_not_found_is_no_missing_collection() -> None:
    with pytest.raises(Unavailable, match="404"):
        writer_answered_with(httpx.Response(404, content=b"<html>no such page</html>")).count("c")
