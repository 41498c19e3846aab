"""An engine's HTTP side without an engine: speaks five wire formats and fails as engines do.

It stands in for what cannot be had in a test: hosted APIs, and engines that need a GPU. What it says is a script.
"""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

from pipeline.tokenizers import load_spec
from tests.support.ports import LOOPBACK

MODEL = "tiny"
WINDOW_TOKENS = 4096
TEXTS = (" Grüße", ",\u2028 東京", " 🤖", " and", " done.")
"""An answer in pieces: more than one byte a character, and a line separator that is none in a stream of events."""

Fault: TypeAlias = Literal[
    "hang", "stall", "error_event", "refusal_event", "reset", "end_early", "garbage", "not_json", "not_events"
]
"""`hang`: never answers. `stall`: stops talking after two pieces. `error_event`, `refusal_event`: an error of 500 or
400 inside a stream that began with 200. `reset`: the connection breaks after two pieces. `end_early`: the stream ends
there as if it were whole. The rest: 200, and then something else than was asked for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Any


class FakeEngine:
    """A server on loopback in a thread of its own. One a test: a late caller of one would speak for the next."""

    def __init__(self) -> None:
        self._tokenizer = load_spec("o200k_base/plain").tokenizer
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self.texts: Sequence[str] = TEXTS
        self.fault: Fault | None = None
        self.status: tuple[int, str, dict[str, str]] | None = None
        """A refusal: status, message, headers."""
        self.shift_ids = 0
        """Added to the ids of `/tokenize`: another vocabulary."""
        self.bos: int | None = None
        """Put before prompts, as some engines do unasked."""
        self.incremental = False
        """SGLang: events hold what is new instead of everything so far."""
        self.slice_bytes = 65_536
        """Most bytes of one write."""
        self.seen: list[Seen] = []
        self.left = threading.Event()
        """Somebody who had asked for an answer closed the connection before it was whole."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def ids(self) -> list[int]:
        return [each for ids in self._piece_ids() for each in ids]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).tolist()
        return ids

    def prompts(self) -> list[Seen]:
        """Return the requests for an answer."""
        return [seen for seen in self.seen if seen.path not in {"/tokenize", "/v1/models"}]

    def _piece_ids(self) -> list[list[int]]:
        return [self.encode(text) for text in self.texts]

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(request_line.split(" ")[1], headers, json.loads(content) if content else None)
        self.seen.append(seen)
        match seen.path:
            case "/v1/models":
                meta = {"n_ctx": WINDOW_TOKENS, "n_vocab": self._tokenizer.vocabulary_size}
                await self._json(writer, {"data": [{"id": MODEL, "max_model_len": WINDOW_TOKENS, "meta": meta}]})
            case "/tokenize":
                text = seen.body.get("prompt", seen.body.get("content"))
                await self._json(writer, {"tokens": [each + self.shift_ids for each in self.encode(text)]})
            case _:
                try:
                    await self._generate(seen, reader, writer)
                except ConnectionError:
                    self.left.set()

    async def _generate(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.status is not None:
            status, message, headers = self.status
            await self._json(writer, {"error": {"message": message, "code": status}}, status=status, headers=headers)
            return
        streams = bool(seen.body.get("stream"))
        match self.fault:
            case "hang":
                await self._wait_for_end(reader)
            case "not_json" | "garbage":
                await self._raw(writer, b"<html>" if self.fault == "not_json" else b'{"data": [1]}', streams=streams)
            case "not_events" if streams:
                await self._json(writer, {"hello": "world"})
            case "end_early" | "reset" | "stall" if not streams:
                await self._cut(reader, writer)
            case "error_event" | "refusal_event" if not streams:
                await self._json(writer, *[_error(self._kind(seen), self.fault)])
            case _ if streams:
                await self._stream(seen, reader, writer)
            case _:
                await self._json(writer, self._whole(seen))

    async def _cut(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin an answer that comes as a whole, and never end it."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        await writer.drain()
        if self.fault == "stall":
            await self._wait_for_end(reader)
        elif self.fault == "reset":
            _reset(writer)

    async def _stream(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        events = list(self._events(seen))
        for place, event in enumerate(events):
            if place == 3 and self.fault is not None:
                match self.fault:
                    case "stall":
                        await self._wait_for_end(reader)
                        return
                    case "reset":
                        _reset(writer)
                        return
                    case "error_event" | "refusal_event":
                        await self._chunks(writer, _sse(_error(self._kind(seen), self.fault)))
                    case _:
                        pass
                break
            await self._chunks(writer, event)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _wait_for_end(self, reader: asyncio.StreamReader) -> None:
        if not await reader.read(1):
            self.left.set()

    async def _chunks(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for start in range(0, len(data), self.slice_bytes):
            part = data[start : start + self.slice_bytes]
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await writer.drain()

    async def _json(
        self, writer: asyncio.StreamWriter, body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        content = json.dumps(body, ensure_ascii=False).encode()
        lines = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + content)
        await writer.drain()

    async def _raw(self, writer: asyncio.StreamWriter, content: bytes, *, streams: bool) -> None:
        body = b"data: " + content + b"\n\n" if streams else content
        kind = "text/event-stream" if streams else "application/json"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    def _kind(self, seen: Seen) -> str:
        return {"/v1/messages": "anthropic", "/generate": "sglang"}.get(seen.path, "openai")

    def _prompt(self, ids: list[int]) -> list[int]:
        return ids if self.bos is None else [self.bos, *ids]

    def _whole(self, seen: Seen) -> Any:
        count = len(self.ids)
        match seen.path:
            case "/v1/completions":
                prompt = self._prompt(seen.body["prompt"])
                choice = {"text": self.text, "finish_reason": "stop", "token_ids": self.ids, "prompt_token_ids": prompt}
                return {"choices": [choice], "usage": _usage(len(prompt), count)}
            case "/generate":
                return {"text": self.text, "output_ids": self.ids, "meta_info": self._meta(seen, count, end=True)}
            case "/completion":
                return {"content": self.text, "tokens": self.ids, **self._end(seen, count)}
            case "/v1/chat/completions":
                message = {"role": "assistant", "content": self.text}
                chosen: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
                return {**_chat("chat.completion"), "choices": [chosen], "usage": _usage(12, count)}
            case _:
                usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": count}
                content = [{"type": "text", "text": self.text}]
                return {"type": "message", "content": content, "stop_reason": "end_turn", "usage": usage}

    def _events(self, seen: Seen) -> Iterator[bytes]:
        count = len(self.ids)
        pairs = list(zip(self.texts, self._piece_ids(), strict=True))
        match seen.path:
            case "/v1/completions":
                prompt = self._prompt(seen.body["prompt"])
                for place, (text, ids) in enumerate(pairs):
                    extra = {"prompt_token_ids": prompt} if place == 0 else {}
                    yield _sse({"choices": [{"text": text, "token_ids": ids, "finish_reason": None, **extra}]})
                yield _sse({"choices": [{"text": "", "token_ids": [], "finish_reason": "stop"}]})
                yield _sse({"choices": [], "usage": _usage(len(prompt), count)})
                yield b"data: [DONE]\n\n"
            case "/generate":
                yield from self._sglang_events(seen, pairs)
            case "/completion":
                made = 0
                for text, ids in pairs:
                    made += len(ids)
                    yield _sse({"content": text, "tokens": ids, "stop": False, "tokens_predicted": made})
                yield _sse({"content": "", "tokens": [], **self._end(seen, count)})
            case "/v1/chat/completions":
                for text, _ in pairs:
                    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                    yield _sse({**_chat("chat.completion.chunk"), "choices": [choice]})
                last = {"index": 0, "delta": {}, "finish_reason": "stop"}
                yield _sse({**_chat("chat.completion.chunk"), "choices": [last]})
                yield _sse({**_chat("chat.completion.chunk"), "choices": [], "usage": _usage(12, count)})
                yield b"data: [DONE]\n\n"
            case _:
                usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 1}
                yield _sse({"type": "message_start", "message": {"content": [], "stop_reason": None, "usage": usage}})
                yield _sse({"type": "ping"})
                for text, _ in pairs:
                    yield _sse({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}})
                end = {"stop_reason": "end_turn"}
                yield _sse({"type": "message_delta", "delta": end, "usage": {"output_tokens": count}})
                yield _sse({"type": "message_stop"})

    def _sglang_events(self, seen: Seen, pairs: Sequence[tuple[str, list[int]]]) -> Iterator[bytes]:
        text, ids = "", list[int]()
        for place, (new_text, new_ids) in enumerate(pairs):
            text, ids = text + new_text, ids + new_ids
            meta = self._meta(seen, len(ids), end=place == len(pairs) - 1)
            shown = (new_text, new_ids) if self.incremental else (text, ids)
            yield _sse({"text": shown[0], "output_ids": shown[1], "meta_info": meta})
        yield b"data: [DONE]\n\n"

    def _meta(self, seen: Seen, count: int, *, end: bool) -> dict[str, Any]:
        prompt = len(self._prompt(seen.body["input_ids"]))
        reason = {"type": "stop", "matched": 1} if end else None
        return {"prompt_tokens": prompt, "completion_tokens": count, "cached_tokens": 7, "finish_reason": reason}

    def _end(self, seen: Seen, count: int) -> dict[str, Any]:
        prompt = len(self._prompt(seen.body["prompt"]))
        counts = {"tokens_predicted": count, "tokens_evaluated": prompt, "timings": {"cache_n": 7}}
        return {"stop": True, "stop_type": "eos", "truncated": False, **counts}


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    details = {"cached_tokens": 7}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
    }


def _chat(kind: str) -> dict[str, Any]:
    return {"id": "x", "object": kind, "created": 1, "model": MODEL}


def _error(kind: str, fault: Fault) -> dict[str, Any]:
    code = 500 if fault == "error_event" else 400
    match kind:
        case "anthropic":
            name = "api_error" if code == 500 else "invalid_request_error"
            return {"type": "error", "error": {"type": name, "message": "it broke"}}
        case "sglang":
            reason = {"type": "abort", "status_code": code, "message": "it broke"}
            return {"text": "", "output_ids": [], "meta_info": {"finish_reason": reason}}
        case _:
            return {"error": {"message": "it broke", "type": "x", "code": code}}


def _sse(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection so that the other side sees a reset."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
