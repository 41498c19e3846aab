"""Golden ids: what an encoding made of certain nasty texts when it was accepted.

`golden/texts.json` is part of every fingerprint and therefore frozen; `golden/{encoding}.json` holds the ids that
tiktoken's own encoding of that name computed. A process whose library computes others is not ready.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import orjson

from pipeline.errors import ExactnessError, InvalidInput
from pipeline.framing import TextEncoder, TokenIds

_GOLDEN = resources.files("pipeline.tokenizers") / "golden"


@dataclass(frozen=True, slots=True)
class Golden:
    """Golden texts and their ids under one encoding."""

    texts: tuple[str, ...]
    ids: tuple[TokenIds, ...]
    """The ids of each text, in the order of the texts."""

    def to_json(self) -> str:
        """Return it as stored with a spec: `{"texts": […], "ids": [[…], …]}`."""
        return orjson.dumps({"texts": self.texts, "ids": [ids.tolist() for ids in self.ids]}).decode()


@cache
def golden_texts() -> tuple[str, ...]:
    """Return the packaged golden texts; frozen, since changing one changes every fingerprint."""
    return tuple(orjson.loads((_GOLDEN / "texts.json").read_bytes()))


def compute_golden(encoder: TextEncoder, *, texts: Sequence[str] | None = None) -> Golden:
    """Encode the golden texts (the packaged ones by default) with this process' library.

    A text that the encoder refuses, for instance for a character its vocabulary lacks, is left out.
    """
    computed: dict[str, TokenIds] = {}
    for text in golden_texts() if texts is None else texts:
        with suppress(InvalidInput):
            computed[text] = encoder.encode(text)
    return Golden(texts=tuple(computed), ids=tuple(computed.values()))


def parse_golden(data: str | bytes) -> Golden:
    """Read back what `Golden.to_json` wrote.

    Raises:
        InvalidInput: It is not of that form.
    """
    try:
        fields = orjson.loads(data)
        return Golden(
            texts=tuple(fields["texts"]),
            ids=tuple(np.array(ids, dtype=np.uint32) for ids in fields["ids"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"golden ids are malformed: {error}", item="golden") from error


def packaged_golden(encoding: str) -> Golden:
    """Return the recorded ids of a packaged encoding.

    Raises:
        InvalidInput: None are packaged for it.
    """
    entry = _GOLDEN / f"{encoding}.json"
    if not entry.is_file():
        raise InvalidInput(f"no golden ids are packaged for {encoding!r}", item="encoding")
    ids = orjson.loads(entry.read_bytes())["ids"]
    return Golden(texts=golden_texts(), ids=tuple(np.array(row, dtype=np.uint32) for row in ids))


def require_golden(recorded: Golden, *, encoder: TextEncoder, name: str) -> None:
    """Compute the recorded texts again and compare.

    Args:
        recorded: What was computed when the encoding was accepted.
        encoder: This process' tokenizer.
        name: What to call it in the error.

    Raises:
        ExactnessError: An id differs; the message shows the first text that does.
    """
    if len(recorded.texts) != len(recorded.ids):
        raise ExactnessError(f"{name}: {len(recorded.texts)} golden texts but ids for {len(recorded.ids)}")
    for text, expected in zip(recorded.texts, recorded.ids, strict=True):
        found = encoder.encode(text)
        if not np.array_equal(found, expected):
            raise ExactnessError(
                f"{name} no longer gives the golden ids of {text!r}: {found.tolist()} instead of {expected.tolist()}"
            )
