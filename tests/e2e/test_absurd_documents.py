"""Documents that are absurd in size or content, over HTTP and the command line: served exactly, or refused by name."""

import base64
import json
import random
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.support.oracle import Published, check_published
from tests.support.stack import Stack
from tests.unit.tokenizers.reference import official

CORPUS = "docs"
MB = 1_000_000
OVER_THE_LIMIT = "Ten million bytes. " * 530_000
_seeded = random.Random(4)

ABSURD = {
    "letters": "a" * MB,
    "digits": "".join(_seeded.choices("0123456789", k=MB)),
    "emoji": "\U0001f600" * (MB // 4),
    "base64": base64.b64encode(_seeded.randbytes(MB // 4 * 3)).decode(),
    "combining marks": "a" + "\u0301" * 100_000,
    "decomposed pairs": "a\u0301" * (MB // 3),
    "joiners": "a" + "\u200d" * (MB // 3),
    "line feeds": "\n" * MB,
    "line feeds between": "x" + "\n" * MB + "y",
    "spaces": " " * MB,
}
NESTED = [b"[" * 100_000, b'{"k":' * 2_000 + b"1" + b"}" * 2_000, b"[" * 500 + b"]" * 500]


def test_absurd_documents_are_served_with_exact_ids_and_impossible_ones_named(
    sqlite_stack: Stack, tmp_path: Path
) -> None:
    stack = sqlite_stack
    stack.start_worker()
    stack.start_dispatcher()
    stack.start_api()
    path = tmp_path / "absurd.jsonl"
    path.write_bytes(b"\n".join([*_lines(), _line("big", OVER_THE_LIMIT), *map(_nested, NESTED), _line("last", "z")]))

    done = stack.processes.run_forefill(
        "ingest", str(path), "--corpus", CORPUS, "--wait", "--json", env=stack.environment, timeout_s=120
    )
    first = len(ABSURD) + 1
    assert done.returncode == 1
    assert f"{path}:{first}: document 'big': text is over 8,388,608 bytes" in done.stderr
    for number in range(first + 1, first + 4):
        assert f"{path}:{number}: " in done.stderr
    assert "Traceback" not in done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["totals"]["done"], answer["totals"]["dead"], answer["broken"]) == (len(ABSURD) + 1, 0, 4)
    check_published(stack, CORPUS, {name: Published(text, 1) for name, text in (ABSURD | {"last": "z"}).items()})

    with httpx.Client(base_url=stack.api_url, timeout=30) as api:
        _check_refusals(api)
        for question in ("aaaa", "\U0001f600", "a\u0301", "x", "z"):
            found = api.post("/v1/retrieve", json={"corpus": CORPUS, "query": question, "include_text": True}).json()
            assert {passage["source"] for passage in found["passages"]} <= {"l1", "l2"}
            assert found["token_ids"] == official("o200k_base").encode_ordinary(found["prompt_text"])


def _check_refusals(api: httpx.Client) -> None:
    """Assert that a request with an impossible document is refused by name and leaves nothing."""
    good = {"id": "good", "text": "t"}
    answer = api.put(_ADDRESS, json={"documents": [good, {"id": "big", "text": OVER_THE_LIMIT}]})
    assert (answer.status_code, answer.json()["item"]) == (413, "big")
    for metadata in NESTED:
        document = b'{"id":"deep","text":"t","metadata":{"k":%s}}' % metadata
        answer = api.put(_ADDRESS, content=b'{"documents":[%s,%s]}' % (orjson.dumps(good), document), headers=_JSON)
        assert answer.status_code == 422
        assert "nested" in answer.json()["detail"] or "not JSON" in answer.json()["detail"]
    assert api.get(f"{_ADDRESS}/good").status_code == 404


_ADDRESS = f"/v1/corpora/{CORPUS}/documents"
_JSON = {"Content-Type": "application/json"}


def _lines() -> list[bytes]:
    return [_line(name, text) for name, text in ABSURD.items()]


def _line(document_id: str, text: str, **more: Any) -> bytes:
    return orjson.dumps({"id": document_id, "text": text, **more})


def _nested(metadata: bytes) -> bytes:
    return b'{"id":"deep","text":"t","metadata":{"k":%s}}' % metadata
