"""Cutting a passage to the room that is left, so that its ids are still those that its text has in the prompt.

Ids that are cut, with the separator's behind them, would be wrong in one cut of six, since tokenizers take the end
of a text together with line feeds behind it. So it is the text that is cut, and the rest is encoded like any passage.
"""

from dataclasses import replace

from pipeline.context.passages import ContextPassage
from pipeline.errors import ExactnessError
from pipeline.tokenizers import TokenSpec, encode_passage

_SPELLINGS = 12
"""How many ids are given up to end at a character: an emoji alone has up to four, in runs tokens share characters."""
_SMALL = 16
"""From so many ids on every number is tried, and then the first character, so that what little fits is found."""
_ATTEMPTS = 32
"""Larger rooms need one or two; a text made to need more shall cost no more."""


def cut_passage(spec: TokenSpec, passage: ContextPassage, *, room_tokens: int) -> ContextPassage | None:
    """Return the beginning of a passage that fits with its separator, or None if none does.

    Args:
        spec: The spec that the passage was encoded under.
        passage: A whole passage, or one that was cut before.
        room_tokens: Most ids that the result may have; fewer than the passage has. Beside an unsafe edge it can come
            to more in its place.
    """
    text = passage_text(spec, passage)
    if room_tokens <= 0 or not text or text[0].isspace():  # compatibility forms spell some characters with a space
        return None
    kept = room_tokens
    if kept > _SMALL:
        kept -= len(spec.tokenizer.encode(spec.frame.separator))
    for _ in range(_ATTEMPTS):
        beginning = _beginning(spec, passage, kept=kept, text=text) if kept > 0 else text[0]
        piece = encode_passage(spec, beginning)
        over = piece.token_count - room_tokens
        if over <= 0:
            return replace(passage, ids=piece.ids, right_safe=piece.right_safe, cut=True)
        if kept <= 0:
            return None
        kept = max(kept - over, _SMALL) if kept > _SMALL else kept - 1
    return None


def passage_text(spec: TokenSpec, passage: ContextPassage) -> str:
    """Return what stands between header and separator, as the tokenizer's normalizer left it.

    Empty if the normalizer changed the separator, so that nobody can say where the passage ends.
    """
    body = spec.tokenizer.decode(passage.ids)
    return body.removesuffix(spec.frame.separator) if body.endswith(spec.frame.separator) else ""


def _beginning(spec: TokenSpec, passage: ContextPassage, *, kept: int, text: str) -> str:
    """Return the text of so many ids, right-stripped; of a few less where they end within a character."""
    for end in range(kept, max(0, kept - _SPELLINGS), -1):
        try:
            beginning = spec.tokenizer.decode(passage.ids[:end])
        except ExactnessError:
            continue
        return beginning[: len(text)].rstrip()  # the last ids are the separator's
    share = len(text) * kept // len(passage.ids)
    return text[: max(1, share)].rstrip()
