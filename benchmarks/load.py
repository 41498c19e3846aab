"""Clients that ask without a pause, in a process of their own, with as little work for one request as can be.

`python -m benchmarks.load PORT PATH SECONDS CLIENTS QUESTIONS.json` prints one JSON object when it is done. An HTTP
library would need more of the machine than the server; this writes requests that are ready and reads answers by their
length. One answer in several is parsed, for the times that it says.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.harness import percentile

_PARSED_EVERY = 8
_ADDED = ("cache", "tokenize", "assemble")


@dataclass(slots=True)
class Tally:
    """What all clients saw."""

    latencies_ms: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)
    """What the answers say of lookup, tokenizing and assembly together."""
    misses: int = 0

    def note(self, body: bytes) -> None:
        """Read the times of one answer, if it says any."""
        answer: dict[str, Any] = orjson.loads(body)
        if "metadata" in answer:
            timings = answer["metadata"]["timings_ms"]
            self.added_ms.append(sum(timings[name] for name in _ADDED))
            self.misses += not answer["metadata"]["cache_hit"]


async def _client(port: int, requests: list[bytes], *, first: int, until: float, tally: Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for place in count(first):
            began = time.perf_counter()
            if began > until:
                return
            writer.write(requests[place % len(requests)])
            body = await _answer(reader)
            tally.latencies_ms.append((time.perf_counter() - began) * 1000)
            if place % _PARSED_EVERY == 0:
                tally.note(body)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"the server answered {head[:60]!r}")
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


def _request(port: int, path: str, body: dict[str, object]) -> bytes:
    content = orjson.dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def ask(port: int, path: str, *, bodies: list[dict[str, object]], seconds: float, clients: int) -> dict[str, Any]:
    """Keep all clients asking for so long; return rates and times."""
    requests = [_request(port, path, body) for body in bodies]
    tally = Tally()
    began = time.perf_counter()
    until = began + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(_client(port, requests, first=number * 37, until=until, tally=tally))
    took = time.perf_counter() - began
    return {
        "requests_per_s": len(tally.latencies_ms) / took,
        "p50_ms": percentile(tally.latencies_ms, 0.5),
        "p99_ms": percentile(tally.latencies_ms, 0.99),
        "added_p99_ms": percentile(tally.added_ms, 0.99) if tally.added_ms else None,
        "added_p50_ms": percentile(tally.added_ms, 0.5) if tally.added_ms else None,
        "misses": tally.misses,
    }


def main(port: str, path: str, seconds: str, clients: str, bodies: str) -> None:
    """Ask, and print what came of it."""
    asked = json.loads(Path(bodies).read_text(encoding="utf-8"))
    print(json.dumps(uvloop.run(ask(int(port), path, bodies=asked, seconds=float(seconds), clients=int(clients)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
