"""What a metadata filter means, exactly. Indexes compare numbers as 64-bit floats: they sift, and this decides.

Equal numbers are equal however they are written: 2023, 2023.0 and 2.023e3; 0 and -0.0. True is no number. Whole numbers
beyond 2**53 are told apart, although they share a float.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pydantic import JsonValue

from pipeline.errors import InvalidInput

Scalar: TypeAlias = str | int | float
"""Text, a number or a boolean."""
Conditions: TypeAlias = Mapping[str, Sequence[Scalar]]
"""Key of the metadata to the values of which it must have one; no values: nothing fits."""


def conditions_of(where: Mapping[str, JsonValue] | None) -> Conditions:
    """Return what a filter asks for.

    Raises:
        InvalidInput: See `any_of`.
    """
    return {key: any_of(key, wanted) for key, wanted in (where or {}).items()}


def any_of(key: str, wanted: JsonValue) -> list[Scalar]:
    """Return the values of which one must be present for a `where` entry to hold.

    Raises:
        InvalidInput: A value is not text, a finite number or a boolean, or the key is empty or holds a quotation mark.
    """
    if not key or '"' in key or "\\" in key:
        raise InvalidInput(f"Filter key {key!r} is empty or holds a quotation mark or backslash", item=key)
    values = wanted if isinstance(wanted, list) else [wanted]
    allowed: list[Scalar] = []
    for value in values:
        if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise InvalidInput(f"Filter {key!r}: only text, finite numbers and booleans can be compared", item=key)
        allowed.append(value)
    return allowed


def holds(metadata: Mapping[str, JsonValue], conditions: Conditions) -> bool:
    """Return whether every key has, alone or in a list, one of its wanted values."""
    return all(any(_has(metadata.get(key), value) for value in values) for key, values in conditions.items())


def nearest_float(number: float) -> float | None:
    """Return the 64-bit float that an index compares a number as, None for one beyond all of them.

    Every number equal to this one has the same.
    """
    try:
        return float(number)
    except OverflowError:
        return None


def _has(stored: JsonValue, wanted: Scalar) -> bool:
    values = stored if isinstance(stored, list) else [stored]
    return any(_equal(value, wanted) for value in values)


def _equal(stored: JsonValue, wanted: Scalar) -> bool:
    """Compare as JSON means it: Python compares whole numbers with floats exactly, but takes True for 1."""
    if _is_number(wanted):
        return _is_number(stored) and stored == wanted
    return type(stored) is type(wanted) and stored == wanted


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
