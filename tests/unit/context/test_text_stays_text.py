"""Text that spells control or structural tokens, of every family at once: never a control id, and always the same ids.

The recorded ids come from encoders other than Forefill's: tiktoken's own for OpenAI's encodings and for Llama 3,
quicktok's for Qwen3. SmolLM2's are this library's, its model file being the only source.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import assemble, prompt_ids
from pipeline.framing import Control, prompt_segments, reference_ids
from pipeline.tokenizers import TokenSpec
from tests.support.real_tokenizers import REAL_SPECS, real_spec
from tests.unit.context.builders import all_found

GOLDEN = Path(__file__).parents[2] / "golden" / "text_stays_text.json"
NO_LIMIT = 2**31


@cache
def golden() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return recorded


def control_ids(spec: TokenSpec) -> list[int]:
    """The ids of the frame's own control tokens, in a prompt's order."""
    segments = (*spec.frame.prefix, *spec.frame.suffix)
    return [spec.tokenizer.control_id(segment.name) for segment in segments if isinstance(segment, Control)]


@pytest.mark.parametrize("spec_id", REAL_SPECS)
def test_the_nastiest_texts_of_each_family_keep_their_recorded_ids(spec_id: str) -> None:
    tokenizer = real_spec(spec_id).tokenizer
    for text, expected in zip(golden()["texts"], golden()["ids"][spec_id], strict=True):
        assert tokenizer.encode(text).tolist() == expected, text
        assert tokenizer.special_ids.isdisjoint(expected), text


@pytest.mark.parametrize("spec_id", REAL_SPECS)
def test_only_the_frame_writes_control_ids_into_a_prompt(spec_id: str) -> None:
    spec = real_spec(spec_id)
    texts = golden()["texts"]
    for place, question in enumerate(texts):
        context = [text.strip() for text in (texts[place - 1], question, texts[place - 2] + question)]
        assembled = assemble(spec, all_found(spec, context), max_context_tokens=NO_LIMIT)
        ids = prompt_ids(spec, assembled, question).tolist()
        assert [number for number in ids if number in spec.tokenizer.special_ids] == control_ids(spec), question
        whole = reference_ids(prompt_segments(spec.frame, context, question), spec.tokenizer)
        assert ids == whole.tolist(), question


@pytest.mark.parametrize("spec_id", REAL_SPECS)
def test_no_token_of_the_vocabulary_can_be_spelled_into_a_control_id(spec_id: str) -> None:
    """Each by its whole text, doubled, without an end, and inside itself."""
    tokenizer = real_spec(spec_id).tokenizer
    for name in tokenizer.identity.special_tokens:
        half = len(name) // 2
        for text in (name, name + name, name[1:], name[:-1], f"{name[:half]}{name}{name[half:]}", f"\n{name}\n"):
            assert tokenizer.special_ids.isdisjoint(tokenizer.encode(text).tolist()), text
