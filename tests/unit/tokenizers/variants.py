"""Tokenizers and frames that break one rule each."""

from dataclasses import replace
from functools import cache

from pipeline.framing import Control, Frame, Text, packaged_frame
from pipeline.tokenizers import TiktokenTokenizer, TokenSpec, build_spec, load_ranks, load_spec, vocabulary_definition

PLAIN = packaged_frame("plain")

CHAT = Frame(
    name="chat",
    prefix=(
        Control("<|endoftext|>"),
        Text("system\nAnswer from the documents.\n"),
        Control("<|fim_prefix|>"),
        Text("user\n"),
    ),
    header="Document {n}\n",
    separator="\n\n",
    question_prefix="Question: ",
    suffix=(Control("<|fim_suffix|>"), Text("assistant\n")),
)
"""A chat frame that borrows the control tokens of cl100k_base."""

COLON = replace(PLAIN, name="colon", header="Doc {n}:\n")
"""Its header ends in punctuation, which o200k_base takes together with a line feed and a slash after it."""

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""White space before a letter is cut otherwise than at the end of a text."""


@cache
def tokenizer_with_pattern(pattern: str) -> TiktokenTokenizer:
    """The vocabulary of cl100k_base, splitting text by another pattern."""
    definition = vocabulary_definition("cl100k_base")
    changed = definition.model_copy(update={"encoding": "variant", "pattern": pattern})
    return TiktokenTokenizer(changed, ranks=load_ranks(definition))


@cache
def gpt2_chat() -> TokenSpec:
    """A spec that is exact only because pieces are encoded with a guard."""
    return build_spec(tokenizer_with_pattern(GPT2_PATTERN), frame=CHAT)


@cache
def cl100k_chat() -> TokenSpec:
    """A spec with control tokens around safe edges."""
    return build_spec(load_spec("cl100k_base/plain").tokenizer, frame=CHAT)


@cache
def o200k_colon() -> TokenSpec:
    """A spec with unsafe edges, exact only because runs around them are encoded anew."""
    return build_spec(load_spec("o200k_base/plain").tokenizer, frame=COLON)
