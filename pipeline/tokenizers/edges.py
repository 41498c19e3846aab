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

from pipeline.framing import Frame, right_neighbours
from pipeline.tokenizers.tokenizer import Tokenizer
from pipeline.tokenizers.vocabulary import known_encodings, vocabulary_definition


def always_cuts_behind(frame: Frame, tokenizer: Tokenizer) -> bool:
    """Tell whether the edge behind every passage is safe, by the reasons above."""
    if set(frame.separator) != {"\n"} or not all(text.isalpha() or not text for text in right_neighbours(frame)):
        return False
    proven = {vocabulary_definition(encoding).pattern for encoding in known_encodings()}
    return tokenizer.source == "tiktoken" and tokenizer.identity.pattern in proven
