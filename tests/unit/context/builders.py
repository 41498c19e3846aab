"""Passages as they come out of the cache, from texts; specs of every kind."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from hashlib import blake2b

from pipeline.context import ContextPassage
from pipeline.tokenizers import TokenSpec, build_spec, encode_passage, load_spec
from tests.unit.tokenizers.hf_files import hf_spec
from tests.unit.tokenizers.variants import CHAT, GPT2_PATTERN, gpt2_chat, o200k_colon, tokenizer_with_pattern


def found(
    spec: TokenSpec,
    text: str,
    *,
    document_id: str = "document",
    ordinal: int = 0,
    generation: int = 1,
    right_safe: bool | None = None,
) -> ContextPassage:
    """One passage; `right_safe` overrides what its encoding found."""
    piece = encode_passage(spec, text)
    return ContextPassage(
        passage_key=blake2b(text.encode(), digest_size=16).digest(),
        ids=piece.ids,
        right_safe=piece.right_safe if right_safe is None else right_safe,
        document_id=document_id,
        ordinal=ordinal,
        generation=generation,
        score=1.0,
        source="l1",
    )


def all_found(spec: TokenSpec, texts: Sequence[str]) -> list[ContextPassage]:
    """Passages of one document, the first text the most relevant and the last in the document."""
    return [found(spec, text, ordinal=len(texts) - index) for index, text in enumerate(texts)]


@cache
def slash_chat() -> TokenSpec:
    """A spec whose passages that end in a slash have other ids before a header than before the question."""
    return build_spec(tokenizer_with_pattern(rf"/\n\n(?=D)|{GPT2_PATTERN}"), frame=CHAT)


@cache
def lines_chat() -> TokenSpec:
    """A spec with no safe edge at all: line feeds are one id before a header and two before the question."""
    return build_spec(tokenizer_with_pattern(rf"\n\n(?=D)|{GPT2_PATTERN}"), frame=CHAT)


SAFE_KINDS: dict[str, Callable[[], TokenSpec]] = {
    "o200k": partial(load_spec, "o200k_base/plain"),
    "cl100k": partial(load_spec, "cl100k_base/plain"),
    "hf gpt2": partial(hf_spec, "gpt2"),
    "hf qwen": partial(hf_spec, "qwen"),
    "hf small": partial(hf_spec, "small"),
    "gpt2 pattern": gpt2_chat,
}
"""Specs all of whose edges are safe."""

UNSAFE_KINDS: dict[str, Callable[[], TokenSpec]] = {
    "o200k colon": o200k_colon,
    "slash": slash_chat,
    "lines": lines_chat,
}
"""Specs that have unsafe edges: on the left of some passages, on the right of some, on the right of all."""

EVERY_KIND = SAFE_KINDS | UNSAFE_KINDS
