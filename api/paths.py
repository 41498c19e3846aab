"""Addresses as they were sent: routes match the percent-encoded path, and each segment is decoded once, afterwards.

A server hands over the path decoded. Then `a%2Fb` and `a/b` are one corpus name, bytes that are not UTF-8 become other
ids, and an id with a line feed matches no route.
"""

import re
from typing import Annotated
from urllib.parse import quote, unquote_to_bytes

from fastapi import Depends, Path
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.documents.validation import check_corpus_name, check_document_id, shown
from pipeline.errors import InvalidInput, NotFound

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class RawPaths:
    """Makes routes see the path as it was sent. Pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Replace the path and pass the request on."""
        if scope["type"] == "http":
            raw = scope.get("raw_path")
            path = quote(scope["path"]) if raw is None else raw.decode("latin-1")
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)


def decode_segment(raw: str) -> str:
    """Decode a part of a path.

    Args:
        raw: As sent, one character per byte.

    Raises:
        InvalidInput: The bytes are not UTF-8.
    """
    try:
        return unquote_to_bytes(raw.encode("latin-1")).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("the address is not percent-encoded UTF-8", item=raw) from error


def _new_corpus_name(corpus: Annotated[str, Path(description="Name of a corpus.")]) -> str:
    return decode_segment(corpus)


def _corpus_name(name: Annotated[str, Depends(_new_corpus_name)]) -> str:
    require_possible_corpus(name)
    return name


def require_possible_corpus(name: str) -> None:
    """Refuse names that no corpus can have before any store is asked for them.

    Raises:
        NotFound: The name is none.
    """
    try:
        check_corpus_name(name)
    except InvalidInput as error:
        raise NotFound(f"there is no corpus {shown(name)}") from error


def _document_id(
    document_id: Annotated[str, Path(description="Id of a document; may hold `/`, raw or percent-encoded.")],
) -> str:
    decoded = decode_segment(document_id)
    check_document_id(decoded)
    return decoded


def _run_id(run_id: Annotated[str, Path(description="Id of a run.")]) -> str:
    if _RUN_ID.fullmatch(run_id) is None:
        raise NotFound(f"there is no run {shown(decode_segment(run_id))}")
    return run_id


NewCorpusName = Annotated[str, Depends(_new_corpus_name)]
"""Of a corpus that may be made; whoever makes it checks the name."""
CorpusName = Annotated[str, Depends(_corpus_name)]
"""Of a corpus that must exist; 404 for names that none can have."""
DocumentId = Annotated[str, Depends(_document_id)]
RunId = Annotated[str, Depends(_run_id)]
