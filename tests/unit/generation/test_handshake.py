"""Ids go only to an engine that means the same by them."""

import pytest

from pipeline.errors import Conflict, Unavailable
from pipeline.generation import Handshake, MockClient
from pipeline.generation.handshake import PROBE, control_names
from pipeline.tokenizers import TokenSpec, load_spec

pytestmark = pytest.mark.anyio


class Tokenizing(MockClient):
    """Answers `tokenize` with a spec's ids and counts the questions."""

    def __init__(self, spec: TokenSpec, *, controls: dict[str, int] | None = None) -> None:
        super().__init__(lambda: spec.tokenizer)
        self.asked: list[str] = []
        self.failing = False
        self._encode = spec.tokenizer.encode
        self._controls = controls or {}

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        self.asked.append(text)
        if self.failing:
            raise Unavailable("away", service="engine")
        if special:
            return [number for name, number in self._controls.items() if name in text]
        ids: list[int] = self._encode(text).tolist()
        return ids


async def test_an_agreement_is_asked_for_once() -> None:
    spec = load_spec("o200k_base/plain")
    client = Tokenizing(spec)
    handshake = Handshake(client)
    await handshake.require_same_ids(spec)
    await handshake.require_same_ids(spec)
    assert client.asked == [PROBE]


async def test_another_vocabulary_is_refused_every_time_with_the_first_difference() -> None:
    client = Tokenizing(load_spec("cl100k_base/plain"))
    handshake = Handshake(client)
    for _ in range(2):
        with pytest.raises(Conflict, match=r"o200k_base/plain \(id 0 of a probe is \d+ here and \d+ there\)"):
            await handshake.require_same_ids(load_spec("o200k_base/plain"))
    assert len(client.asked) == 2


async def test_what_could_not_be_asked_is_not_agreed() -> None:
    spec = load_spec("o200k_base/plain")
    client = Tokenizing(spec)
    client.failing = True
    handshake = Handshake(client)
    with pytest.raises(Unavailable):
        await handshake.require_same_ids(spec)
    client.failing = False
    await handshake.require_same_ids(spec)


async def test_the_probe_tells_vocabularies_apart_and_names_no_control_token() -> None:
    ids = {load_spec(f"{name}/plain").tokenizer.encode(PROBE).tobytes() for name in ("o200k_base", "cl100k_base")}
    assert len(ids) == 2
    assert "<|" not in PROBE
    assert control_names(load_spec("o200k_base/plain").frame) == []
