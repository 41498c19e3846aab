"""How many passages fit into a token budget."""

from collections.abc import Sequence

from pipeline.context.passages import ContextPassage
from pipeline.tokenizers import TokenSpec, encode_header, encode_prefix


def select_within_budget(
    spec: TokenSpec, passages: Sequence[ContextPassage], *, max_context_tokens: int
) -> list[ContextPassage]:
    """Take passages by falling relevance until the first that does not fit as a whole.

    Counts prefix, headers and passages. The sum is the context's length if every edge is safe; the assembler counts the
    final ids where one is not. It does not depend on the order in which the taken ones will stand.
    """
    room = max_context_tokens - len(encode_prefix(spec))
    taken: list[ContextPassage] = []
    for number, passage in enumerate(passages, start=1):
        room -= len(encode_header(spec, number)) + len(passage.ids)
        if room < 0:
            break
        taken.append(passage)
    return taken
