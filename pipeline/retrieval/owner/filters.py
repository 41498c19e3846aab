"""Filters: from Qdrant's REST models to the engine's objects, refusing what is not served."""

from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client.http import models

from pipeline.errors import InvalidInput
from pipeline.retrieval.owner.schema import point_keys

MAX_VALUES = 1_000
"""Conditions in one clause, and ids or values in one condition."""
MAX_DEPTH = 8
"""Filters inside filters."""


def to_edge(filter_: models.Filter | None, *, depth: int = 1) -> edge.Filter | None:
    """Translate a filter; None stays None.

    Raises:
        InvalidInput: It holds a condition that the embedded engine does not serve, or too much.
    """
    if filter_ is None:
        return None
    if depth > MAX_DEPTH:
        raise InvalidInput(f"Filters may be nested {MAX_DEPTH} deep")
    return edge.Filter(
        must=_clause(filter_.must, depth=depth),
        should=_clause(filter_.should, depth=depth),
        must_not=_clause(filter_.must_not, depth=depth),
        min_should=None if filter_.min_should is None else _least(filter_.min_should, depth=depth),
    )


def _least(clause: models.MinShould, *, depth: int) -> edge.MinShould:
    return edge.MinShould(_clause(clause.conditions, depth=depth) or [], _natural(clause.min_count, "min_count"))


def _clause(conditions: Any, *, depth: int) -> list[Any] | None:
    """Translate one clause, which REST writes as a list or as a single condition."""
    if conditions is None:
        return None
    listed = conditions if isinstance(conditions, list) else [conditions]
    _bounded(listed)
    return [_condition(condition, depth=depth) for condition in listed]


def _condition(condition: models.Condition, *, depth: int) -> Any:
    match condition:
        case models.FieldCondition():
            return _field(condition)
        case models.HasIdCondition():
            return edge.HasIdCondition(set(point_keys(condition.has_id, at_most=MAX_VALUES)))
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(condition.is_empty.key)
        case models.IsNullCondition():
            return edge.IsNullCondition(condition.is_null.key)
        case models.HasVectorCondition():
            return edge.HasVectorCondition(condition.has_vector)
        case models.Filter():
            return to_edge(condition, depth=depth + 1)
        case _:
            raise InvalidInput(f"The embedded engine does not serve {type(condition).__name__} in filters")


def _field(condition: models.FieldCondition) -> edge.FieldCondition:
    given = {name for name in type(condition).model_fields if name != "key" and getattr(condition, name) is not None}
    if unserved := given - {"match", "range", "is_empty", "is_null"}:
        raise InvalidInput(f"The embedded engine does not serve {sorted(unserved)} in filters")
    if len(given) != 1:
        raise InvalidInput(f"A condition on {condition.key!r} needs exactly one of match, range, is_empty, is_null")
    return edge.FieldCondition(
        condition.key,
        match=None if condition.match is None else _match(condition.match),
        range=None if condition.range is None else _range(condition.range),
        is_empty=condition.is_empty,
        is_null=condition.is_null,
    )


def _match(match: models.Match) -> Any:
    match match:
        case models.MatchValue():
            return edge.MatchValue(_scalar(match.value))
        case models.MatchAny():
            return edge.MatchAny(_bounded(match.any))
        case models.MatchExcept():
            return edge.MatchExcept(_bounded(match.except_))
        case _:
            raise InvalidInput(f"The embedded engine does not serve {type(match).__name__} in filters")


def _scalar(value: models.ValueVariants) -> Any:
    """Return a value as the binding understands it: it takes Python's True for the number 1, but not numpy's."""
    return np.bool_(value) if isinstance(value, bool) else value


def _range(bounds: models.RangeInterface) -> edge.RangeFloat:
    if not isinstance(bounds, models.Range):
        raise InvalidInput("The embedded engine serves ranges of numbers only")
    return edge.RangeFloat(gte=bounds.gte, gt=bounds.gt, lte=bounds.lte, lt=bounds.lt)


def _bounded(values: list[Any]) -> list[Any]:
    if len(values) > MAX_VALUES:
        raise InvalidInput(f"At most {MAX_VALUES} values in one condition, not {len(values)}")
    return values


def _natural(value: int, name: str) -> int:
    if not 0 <= value <= MAX_VALUES:
        raise InvalidInput(f"{name} must be 0 to {MAX_VALUES}")
    return value
