"""The one reader of JSON that others wrote: bodies of requests, lines of files, filters and specs.

Nothing is changed on the way in: an integer stays an integer however long, and what would be lost without a word (a key
that comes twice, a number that no float holds) is refused. jiter does all of it but say which document is meant, and it
takes no lone surrogate. What it refuses is therefore read once more by the standard library, slowly, to find the place.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jiter

from pipeline.errors import InvalidInput

MAX_JSON_DEPTH = 200
"""Objects and lists within one another; jiter's own bound."""

_LONGEST_INTEGER = 640
"""Digits that every Python reads: no host can be told to refuse them."""
_SHOWN_CHARACTERS = 80

_PLAIN_NUMBERS = bytes.maketrans(b"123456789E", b"000000000e")
_MAY_OVERFLOW = (b"0" * 200, b"e000", b"e+000")
"""One of these is in every number that no float holds, after translation; found so, 32 MiB take 30 ms."""
_PLACE = re.compile(r"(.*) at line (\d+) column (\d+)", re.DOTALL)
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_FOREIGN_BYTES = re.compile("[\udc80-\udcff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Fault:
    """Stands in a value for what must not be there."""

    reason: str


def read_json(data: bytes) -> Any:
    """Read one JSON value; a text in it may hold NUL and lone surrogates, which are for its owner to judge.

    Raises:
        InvalidInput: It is no JSON, it is nested over `MAX_JSON_DEPTH` deep, a number in it is not finite, a key comes
            twice, or a text is not UTF-8. Where that is inside a document, the error names it; else the message begins
            with a verb, for whoever says what the bytes are.
    """
    try:
        value = jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        return _read_slowly(data, said=str(error))
    plain = data.translate(_PLAIN_NUMBERS)
    if any(part in plain for part in _MAY_OVERFLOW):
        _refuse_faults(value)
    return value


def _read_slowly(data: bytes, *, said: str) -> Any:
    """Find out what jiter refused, and return the value if it is only lone surrogates.

    Args:
        data: The JSON.
        said: What jiter said.
    """
    try:
        text = data.decode()
        is_utf8 = True
    except UnicodeDecodeError as error:
        text, said, is_utf8 = data.decode(errors="surrogateescape"), f"not UTF-8 at byte {error.start}", False
    try:
        value = _SLOW.decode(_flattened(text))
    except ValueError as error:
        raise InvalidInput(f"is not JSON: {_placed(said)}") from error
    _refuse_faults(value, is_utf8=is_utf8)
    if not is_utf8 or not any(isinstance(each, str) and _SURROGATES.search(each) for each, _, _ in _walk(value)):
        raise InvalidInput(f"is not JSON: {_placed(said)}")
    return value


def _flattened(text: str) -> str:
    """Return the text without what stands two levels beyond the depth allowed: the slow reader recurs."""
    depth, kept, parts = 0, 0, []
    for match in _STRING_OR_BRACKET.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            if depth == MAX_JSON_DEPTH + 2:
                parts.append(text[kept : match.start()])
                kept = len(text)
        elif bracket in "]}":
            if depth == MAX_JSON_DEPTH + 2:
                kept = match.end()
                parts.append("null")
            depth -= 1
    return text if not parts else "".join((*parts, text[kept:]))


def _refuse_faults(value: Any, *, is_utf8: bool = True) -> None:
    """Refuse the first fault in a value, and name the document that holds it."""
    for each, owner, depth in _walk(value):
        reason = _reason(each, depth=depth, is_utf8=is_utf8)
        if reason is not None:
            raise InvalidInput(reason if owner is None else f"document {_quoted(owner)} {reason}", item=owner)


def _reason(value: object, *, depth: int, is_utf8: bool) -> str | None:
    match value:
        case _Fault():
            return value.reason
        case float() if not math.isfinite(value):
            return "holds a number that is not finite"
        case str() if not is_utf8 and _FOREIGN_BYTES.search(value):
            return "holds bytes that are not UTF-8"
        case dict() | list() if depth > MAX_JSON_DEPTH:
            return f"is nested more than {MAX_JSON_DEPTH} deep"
    return None


def _walk(root: Any) -> Iterator[tuple[object, str | None, int]]:
    """Yield every key and value, the id of the outermost object around it that has one, and how deep it stands."""
    pending: list[tuple[Any, str | None, int]] = [(root, None, 1)]
    while pending:
        value, owner, depth = pending.pop()
        if isinstance(value, dict):
            own = value.get("id")
            owner = own if owner is None and isinstance(own, str) else owner
            pending.extend((key, owner, depth) for key in value if isinstance(key, str))
            pending.extend((inner, owner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            pending.extend((inner, owner, depth + 1) for inner in value)
        yield value, owner, depth


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str | None, Any]:
    """Return an object, with a fault in it if a key comes twice."""
    fields: dict[str | None, Any] = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # adds
        fields[None] = _Fault(f"has the key {_quoted(twice)} twice")
    return fields


def _integer(digits: str) -> int | _Fault:
    if len(digits) > _LONGEST_INTEGER:
        return _Fault("holds an integer of thousands of digits")
    return int(digits)


def _constant(name: str) -> _Fault:
    return _Fault(f"is not JSON: it holds {name}")


_SLOW = json.JSONDecoder(object_pairs_hook=_unrepeated, parse_int=_integer, parse_constant=_constant)


def _placed(said: str) -> str:
    """Return jiter's words; what is in the first line is placed by its column, since lines of files are numbered."""
    match = _PLACE.fullmatch(said)
    if match is None:
        return said
    reason, line, column = match.groups()
    return f"{reason} at column {column}" if line == "1" else f"{reason} at line {line}, column {column}"


def _quoted(text: str) -> str:
    head = text[:_SHOWN_CHARACTERS]
    return ascii(head) if head == text else f"{head!a}…"
