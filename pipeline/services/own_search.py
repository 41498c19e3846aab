"""A caller's own database as the read path's search: it is asked for documents, and each is one passage of a prompt.

Whatever it does is bounded and checked here: a search that fails, never ends or answers something else becomes one
sentence, and never an id that belongs to another text. A search that is not asynchronous runs in a thread of its own,
which nobody has to wait for at the end of the process.
"""

import asyncio
import inspect
import math
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence, Sized
from itertools import islice
from numbers import Real
from typing import Any, NoReturn, Protocol, TypeAlias
from uuid import UUID

from pipeline.documents.passages import passage_key
from pipeline.documents.validation import check_document_id, shown
from pipeline.errors import ConfigurationError, ForefillError, InvalidInput, TooLarge, Unavailable
from pipeline.retrieval.vector_index import Hit
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

SERVICE = "vector_db"
MAX_DOCUMENT_BYTES = 64_000
"""UTF-8 bytes of one found document: an entry holds at most 65,536 ids, its separator's among them."""
MAX_THREADS = 64
"""Searches that may run in threads at once."""


Search: TypeAlias = Callable[..., Any]


class OwnVectorDatabase(Protocol):
    """What must be there at least."""

    @property
    def search(self) -> Search:
        """Return documents for a query and `top_k`, best first; asynchronous or not.

        Mappings or objects with `id` and `text` or `content`, and perhaps `score` and `metadata`.
        """
        ...


class OwnSearcher:
    """Makes hits of what a caller's own database finds. For one event loop; the database is its owner's to close."""

    def __init__(self, database: OwnVectorDatabase, *, timeout_s: float) -> None:
        """Look whether it can be searched.

        Args:
            database: The caller's own.
            timeout_s: Seconds one search may take.

        Raises:
            ConfigurationError: It has no `search` that takes a query and `top_k`.
        """
        self._search = _search_of(database)
        self._timeout_s = timeout_s
        self._running = 0
        self._given_up: set[asyncio.Future[Any]] = set()
        self._has_told = False

    async def find(self, query: str, *, top_k: int) -> list[Hit]:
        """Return at most so many documents, best first, each text once.

        Raises:
            InvalidInput: The database answers something else than documents; the sentence says what.
            Unavailable: It failed or did not answer in time.
        """
        return _hits(await self._found(query, top_k), shown_so_far=top_k)

    async def texts(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:  # noqa: ARG002  # hits bring theirs
        """Return nothing: every hit has its text."""
        return {}

    async def _found(self, query: str, top_k: int) -> list[object]:
        asking = asyncio.ensure_future(self._asked(query, top_k))
        try:
            await asyncio.wait({asking}, timeout=self._timeout_s)
        finally:
            if not asking.done():
                self._give_up(asking)
        if asking.cancelled() or not asking.done():
            raise Unavailable(f"vector_db.search did not answer within {self._timeout_s:g} s", service=SERVICE)
        try:
            return asking.result()
        except ForefillError:
            raise
        except Exception as error:
            _log.warning("own_search.failed", error=str(error))
            raise Unavailable(f"vector_db.search raised {type(error).__name__}", service=SERVICE) from error

    def _give_up(self, asking: "asyncio.Future[Any]") -> None:
        """Cancel a search without waiting: it may not obey."""
        self._given_up.add(asking)
        asking.add_done_callback(self._forget)
        asking.cancel()

    def _forget(self, asking: "asyncio.Future[Any]") -> None:
        self._given_up.discard(asking)
        if not asking.cancelled():
            asking.exception()  # marks it as seen

    async def _asked(self, query: str, top_k: int) -> list[object]:
        if inspect.iscoroutinefunction(self._search) or inspect.isasyncgenfunction(self._search):
            answer = self._search(query, top_k)
        else:
            answer = await self._in_thread(lambda: _materialized(self._search(query, top_k), top_k))
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, AsyncIterable):
            return await _first(answer, top_k)
        if not isinstance(answer, list | tuple):
            answer = await self._in_thread(lambda: _materialized(answer, top_k))
        return self._at_most(answer, top_k)

    def _at_most(self, documents: Sequence[object], top_k: int) -> list[object]:
        if len(documents) > top_k and not self._has_told:
            self._has_told = True
            _log.warning("own_search.more_than_asked", found=len(documents), top_k=top_k)
        return list(documents[:top_k])

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        if self._running >= MAX_THREADS:
            raise Unavailable(f"{MAX_THREADS} earlier calls of vector_db.search have not returned", service=SERVICE)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._running += 1

        def finish(result: Any, error: Exception | None) -> None:
            self._running -= 1
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def run() -> None:
            result: Any = None
            error: Exception | None = None
            try:
                result = work()
            except StopIteration:
                error = RuntimeError("it raised StopIteration")  # which no future can carry
            except Exception as raised:  # noqa: BLE001  # handed on to who asked
                error = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=run, name="vector_db.search", daemon=True).start()
        return await done


def _search_of(database: object) -> Search:
    """Return the database's search as a function of query and number, however it names the number."""
    kind = type(database).__name__
    if not callable(getattr(database, "search", None)):
        raise ConfigurationError(f"vector_db ({kind}) is no AsyncQdrantClient and has no method search(query, top_k)")
    search: Search = database.search  # type: ignore[attr-defined]  # looked for above
    try:
        signature = inspect.signature(search)
    except ValueError:  # written in another language: nothing is known of it
        return search
    for arguments, options in ((("query",), {"top_k": 1}), (("query", 1), {})):
        try:
            signature.bind(*arguments, **options)
        except TypeError:
            continue
        return _by_keyword(search) if options else search
    raise ConfigurationError(f"vector_db.search of {kind} cannot be called as search(query, top_k)")


def _by_keyword(search: Search) -> Search:
    """Return the search called with `top_k` by name, still asynchronous if it is."""
    if inspect.iscoroutinefunction(search):

        async def search_by_keyword(query: str, top_k: int) -> Any:
            return await search(query, top_k=top_k)

        return search_by_keyword
    return lambda query, top_k: search(query, top_k=top_k)


def _materialized(answer: object, top_k: int) -> Any:
    """Return the first documents of an answer as a list; awaitable and asynchronous ones as they are."""
    if isinstance(answer, Awaitable | AsyncIterable):
        return answer
    if answer is None or isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        what = "None" if answer is None else f"a {type(answer).__name__}"
        raise InvalidInput(f"vector_db.search returned {what} instead of a list of documents", item=SERVICE)
    most = len(answer) if isinstance(answer, Sized) else top_k
    return list(islice(answer, min(most, top_k + 1)))


async def _first(answer: AsyncIterable[object], top_k: int) -> list[object]:
    documents: list[object] = []
    async for document in answer:
        documents.append(document)
        if len(documents) >= top_k:
            break
    return documents


def _hits(documents: Sequence[object], *, shown_so_far: int) -> list[Hit]:
    """Return each text once, in the order of relevance."""
    hits: dict[str, Hit] = {}
    texts: dict[str, str] = {}
    for place, document in enumerate(documents[:shown_so_far], start=1):
        hit = _hit(document, place=place)
        text = hit.text or ""
        if texts.setdefault(hit.document_id, text) != text:
            _refuse(hit.document_id, "comes twice, with different texts")
        hits.setdefault(hit.passage_key, hit)
    return list(hits.values())


def _hit(document: object, *, place: int) -> Hit:
    document_id = _document_id(document, place=place)
    text = _text(document, document_id)
    score, metadata = _field(document, "score"), _field(document, "metadata")
    key = passage_key(text).hex()
    return Hit(
        point_id=key,
        document_id=document_id,
        ordinal=0,
        generation=0,
        passage_key=key,
        score=float(score) if isinstance(score, Real) and math.isfinite(score) else 0.0,
        metadata=metadata if isinstance(metadata, Mapping) else {},
        text=text,
    )


def _document_id(document: object, *, place: int) -> str:
    given = _field(document, "id")
    if isinstance(given, int | UUID) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str):
        what = f"has {'no id' if given is None else f'a {type(given).__name__} as its id'}"
        raise InvalidInput(f"vector_db.search: document {place} ({type(document).__name__}) {what}", item=SERVICE)
    check_document_id(given)
    return given


def _text(document: object, document_id: str) -> str:
    """Return a document's text without outer white space, as a passage has it."""
    given = _field(document, "text")
    if given is None:
        given = _field(document, "content")
    if given is None:
        _refuse(document_id, "has neither text nor content")
    if not isinstance(given, str):
        _refuse(document_id, f"has {type(given).__name__} as its text, not str")
    text = given.strip()
    if not text:
        _refuse(document_id, "has an empty text")
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        _refuse(document_id, "holds a lone surrogate")
    if size_bytes > MAX_DOCUMENT_BYTES:
        raise TooLarge(
            f"vector_db.search: document {shown(document_id)} has {size_bytes:,} bytes, more than "
            f"{MAX_DOCUMENT_BYTES:,}: hand in passages of it",
            item=document_id,
        )
    return text


def _field(document: object, name: str) -> object:
    if isinstance(document, Mapping):
        return document.get(name)
    return getattr(document, name, None)


def _refuse(document_id: str, what: str) -> NoReturn:
    raise InvalidInput(f"vector_db.search: document {shown(document_id)} {what}", item=document_id)
