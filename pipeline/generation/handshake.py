"""Making sure that an engine means the same by an id: foreign ids in range are served silently, and wrongly.

An engine is sent a text that vocabularies cut differently, and the names of the frame's control tokens, and must give
them the ids that the spec gives. An agreement holds for a minute: another model may be served at the same address.
"""

import asyncio
from typing import Final

from pipeline.errors import Conflict
from pipeline.framing import Control, Frame
from pipeline.generation.client import GenerationClient
from pipeline.tokenizers import TokenSpec

FRESH_S = 60.0
"""Seconds an agreement holds."""

PROBE: Final = (
    "Document 12\nThe quick brown fox didn't jump 1234567 times, see §4.2(b).\n\n"
    "Größe, naïve café, ΑΒΓ, Документ № 7, 東京タワー, ภาษาไทย, مرحبا, 🙂🙂👩‍👩‍👧\n\n"
    "def f(x):\n\treturn  x**2  # comment\n\n   indented\r\nQuestion: what's next? \n\nAnswer:"
)
"""Text without the names of control tokens, which vLLM's tokenizer would take for such tokens."""


class Handshake:
    """What an engine and the specs in use agreed on."""

    def __init__(self, client: GenerationClient) -> None:
        self._client = client
        self._agreed_until: dict[str, float] = {}
        self._asking = asyncio.Lock()

    async def require_same_ids(self, spec: TokenSpec) -> None:
        """Refuse to send ids that the engine would read as other text.

        Raises:
            Conflict: Engine and spec give a text other ids.
            Unavailable: The engine did not answer, or offers no tokenizer.
        """
        now = asyncio.get_running_loop().time()
        if self._agreed_until.get(spec.fingerprint, 0.0) > now:
            return
        async with self._asking:
            if self._agreed_until.get(spec.fingerprint, 0.0) > now:
                return
            await self._compare_text(spec)
            await self._compare_controls(spec)
            self._agreed_until[spec.fingerprint] = now + FRESH_S

    async def _compare_text(self, spec: TokenSpec) -> None:
        ours, theirs = spec.tokenizer.encode(PROBE).tolist(), await self._client.tokenize(PROBE)
        if ours != theirs:
            at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), -1)
            raise _refused(spec, f"id {at} of a probe is {ours[at]} here and {theirs[at]} there" if at >= 0 else None)

    async def _compare_controls(self, spec: TokenSpec) -> None:
        names = control_names(spec.frame)
        if not names:
            return
        ours = [spec.tokenizer.control_id(name) for name in names]
        theirs = await self._client.tokenize("".join(names), special=True)
        if ours != theirs:
            raise _refused(spec, f"its ids of {''.join(names)[:80]} are others")


def control_names(frame: Frame) -> list[str]:
    """Return the names of a frame's control tokens, each once, in their order."""
    names = (segment.name for segment in (*frame.prefix, *frame.suffix) if isinstance(segment, Control))
    return list(dict.fromkeys(names))


def _refused(spec: TokenSpec, detail: str | None) -> Conflict:
    more = f" ({detail})" if detail else ""
    return Conflict(
        f"the engine tokenizes otherwise than spec {spec.spec_id}{more}: its prompts would be read as other text; "
        "give the corpus a spec made from the engine's own tokenizer"
    )
