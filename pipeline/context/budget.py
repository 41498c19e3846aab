"""Which passages fit into a token budget."""

from collections.abc import Sequence

from pipeline.context.cutting import cut_passage
from pipeline.context.passages import ContextPassage
from pipeline.tokenizers import TokenSpec, encode_header, encode_prefix


def select_within_budget(
    spec: TokenSpec, passages: Sequence[ContextPassage], *, max_context_tokens: int, cut_last: bool
) -> list[ContextPassage]:
    """Take passages by falling relevance until the first that does not fit as a whole, and of that one what fits.

    Counts prefix, headers and the ids of entries. The sum is the context's length if every edge is safe; the assembler
    counts the final ids where one is not.

    Args:
        spec: The spec that all passages were encoded under.
        passages: By falling relevance.
        max_context_tokens: Most ids the context may have.
        cut_last: Whether the first that does not fit is cut; left out if not, or if nothing of it fits.
    """
    room = max_context_tokens - len(encode_prefix(spec))
    taken: list[ContextPassage] = []
    for number, passage in enumerate(passages, start=1):
        room -= len(encode_header(spec, number))
        if passage.token_count > room:
            beginning = cut_passage(spec, passage, room_tokens=room) if cut_last else None
            return taken if beginning is None else [*taken, beginning]
        room -= passage.token_count
        taken.append(passage)
    return taken
