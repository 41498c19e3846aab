"""Added tokens of a `tokenizer.json`: which of them can be control tokens, and why others cannot.

A frame writes control tokens by their ids, text never becomes one. That is exact only where the file itself takes an
added token for exactly its own characters; what takes white space along, hides inside another one, or is ordinary text
is refused with an example.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.errors import InvalidInput

MAX_ADDED_TOKENS = 10_000

_LEAST_CHARACTERS = 3


class AddedToken(BaseModel):
    """One added token as the file describes it."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: int = Field(ge=0, lt=2**31)
    content: str = Field(min_length=1, max_length=1000)
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


_TOKENS = TypeAdapter(list[AddedToken])


def parse_added_tokens(data: Any) -> tuple[AddedToken, ...]:
    """Read the field `added_tokens`; None means none.

    Raises:
        InvalidInput: It is malformed, or names an id or a text twice.
    """
    try:
        tokens = _TOKENS.validate_python(data or [])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _refused(f"added_tokens.{place}: {first['msg']}") from error
    if len(tokens) > MAX_ADDED_TOKENS:
        raise _refused(f"it has {len(tokens):,} added tokens, more than {MAX_ADDED_TOKENS:,}")
    for values in ([token.id for token in tokens], [token.content for token in tokens]):
        if len(set(values)) < len(values):
            raise _refused("an added token is listed twice")
    return tuple(tokens)


def check_added_tokens(
    tokens: Sequence[AddedToken],
    *,
    vocabulary: Mapping[str, int],
    merged: Iterable[str],
    has_normalizer: bool,
) -> None:
    """Refuse a file whose added tokens cannot be told from text exactly.

    Args:
        tokens: The file's.
        vocabulary: Token to id, of the model.
        merged: What its merges make.
        has_normalizer: Whether text is changed before it is searched for `normalized` tokens.

    Raises:
        InvalidInput: One of them cannot; the message shows it.
    """
    made = frozenset(merged)
    for token in tokens:
        shown = repr(token.content)
        if token.lstrip or token.rstrip or token.single_word:
            raise _refused(_greedy(token))
        if token.normalized and has_normalizer:
            raise _refused(f"added token {shown} is searched for in normalized text: other spellings become it too")
        if _is_ordinary(token.content):
            raise _refused(
                f"added token {shown} (id {token.id}) is ordinary text: what people write would get other ids than "
                "the model was trained on"
            )
        if vocabulary.get(token.content, token.id) != token.id:
            raise _refused(f"added token {shown} has id {token.id}, and {vocabulary[token.content]} in the vocabulary")
        if token.content in made:
            raise _refused(f"the vocabulary's own merges make {shown} (id {token.id}) of text that spells it")
    for inner, outer in _entangled([token.content for token in tokens]):
        raise _refused(f"added token {inner!r} is part of, or overlaps, added token {outer!r}")


def _greedy(token: AddedToken) -> str:
    if token.single_word:
        return f"added token {token.content!r} is a token only beside white space (single_word)"
    side, text = ("before", f"a {token.content}") if token.lstrip else ("after", f"{token.content} a")
    option = "lstrip" if token.lstrip else "rstrip"
    return f"added token {token.content!r} swallows white space {side} it ({option}), for instance in {text!r}"


def _is_ordinary(content: str) -> bool:
    """Tell whether text may well hold it: white space, words, or one or two characters."""
    return len(content) < _LEAST_CHARACTERS or all(unicodedata.category(char)[0] not in "PS" for char in content)


def _entangled(contents: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of which one begins inside the other."""
    beginnings: dict[str, str] = {}
    for content in contents:
        for end in range(1, len(content) + 1):
            beginnings.setdefault(content[:end], content)
    whole = set(contents)
    lengths = sorted({len(content) for content in contents})
    for content in contents:
        for start in range(len(content)):
            rest = content[start:]
            if start and rest in beginnings:
                yield beginnings[rest], content
            yield from (
                (rest[:length], content)
                for length in lengths
                if length <= len(rest) and length < len(content) and rest[:length] in whole
            )


def _refused(reason: str) -> InvalidInput:
    return InvalidInput(f"this tokenizer.json cannot be used exactly: {reason}", item="tokenizer_json")
