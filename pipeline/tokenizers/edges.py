r"""Which tokenizers end a token at line feeds whatever follows, so that no passage's edge needs to be tried.

Entries end in the frame's separator. Where that is line feeds alone, behind a passage whose last character is no white
space, and a letter or the end of the text follows, the patterns below always cut just behind it, and equally:

- Behind a letter, digit or mark the separator is a run of white space of its own. `\s*[\r\n]+` (and `\s*[\r\n]`)
  reaches to the run's last line feed, which is its end; `\s++$` takes the same run where the text ends.
- Behind punctuation or a symbol, ` ?[^\s\p{L}\p{N}]+[\r\n/]*` takes the line feeds along, to the last one.
- A letter never takes a line feed along: what may stand before it excludes `\r` and `\n`.
- What was cut further left came from left to right, and looks no further ahead than white space without line feeds.

Merges stay within what a pattern cuts. So the ids are the same before every neighbour, and deciding it passage by
passage is work for nothing. Every other tokenizer and frame is tried, passage by passage.
"""

import orjson

from pipeline.framing import Frame, right_neighbours
from pipeline.tokenizers.tokenizer import Tokenizer, TokenizerIdentity
from pipeline.tokenizers.vocabulary import known_encodings, vocabulary_definition

_CL100K_LIKE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_FILES_PROVEN = frozenset(digits.join(_CL100K_LIKE) for digits in (r"\p{N}", r"\p{N}{1,3}"))
"""How Qwen 2 and 3 and Llama 3 split text."""

_NORMALIZERS_PROVEN = frozenset(("", '{"type":"NFC"}'))
"""NFC takes no line feed into a composition, and makes white space of white space only."""


def always_cuts_behind(frame: Frame, tokenizer: Tokenizer) -> bool:
    """Tell whether the edge behind every passage is safe, by the reasons above."""
    if set(frame.separator) != {"\n"} or not all(text.isalpha() or not text for text in right_neighbours(frame)):
        return False
    if tokenizer.source == "tiktoken":
        proven = {vocabulary_definition(encoding).pattern for encoding in known_encodings()}
        return tokenizer.identity.pattern in proven
    return tokenizer.identity.normalizer in _NORMALIZERS_PROVEN and _splits_as_proven(tokenizer.identity)


def _splits_as_proven(identity: TokenizerIdentity) -> bool:
    """Tell whether a `tokenizer.json` splits by a proven pattern, then spells bytes, and does nothing else."""
    match orjson.loads(identity.pattern):
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {"Regex": str(pattern)}},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern in _FILES_PROVEN
        case _:
            return False
