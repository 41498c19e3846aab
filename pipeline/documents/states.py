"""States of a document, and who moves it out of each.

    accept                publish                 accept
─────────▶ pending ─────────────────▶ served ──────────────▶ stale ──publish──▶ served
              │                          │                     │
              ├──give up──▶ dead ◀───────┼──────give up────────┤
              │              │ accept: pending, or stale if an older generation is still served
              └────────── delete ────────┴──── delete ─────────┘
                             ▼
                          deleted ──accept──▶ pending or stale
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from pipeline.errors import Conflict


class DocumentState(StrEnum):
    """Where a document stands; derived from its generations, kept as a column to be listed by."""

    PENDING = "pending"
    """Accepted, nothing of it can be found yet. A worker publishes it."""
    SERVED = "served"
    """Search finds its newest generation. Only a new change moves it."""
    STALE = "stale"
    """Search finds an older generation. A worker publishes the newest."""
    DEAD = "dead"
    """Its newest generation failed for good. A new change or `runs retry` revives it."""
    DELETED = "deleted"
    """Its newest generation is a deletion. A worker retires its points; a new text revives it."""


_S = DocumentState

DOCUMENT_TRANSITIONS: Mapping[DocumentState, frozenset[DocumentState]] = MappingProxyType(
    {
        _S.PENDING: frozenset({_S.PENDING, _S.SERVED, _S.DEAD, _S.DELETED}),
        _S.SERVED: frozenset({_S.STALE, _S.DELETED}),
        _S.STALE: frozenset({_S.STALE, _S.SERVED, _S.DEAD, _S.DELETED}),
        _S.DEAD: frozenset({_S.PENDING, _S.STALE, _S.DELETED}),
        _S.DELETED: frozenset({_S.PENDING, _S.STALE, _S.DELETED}),
    }
)
"""From each state, where it may go."""


def state_after_accept(current: DocumentState, *, served_generation: int, deletes: bool) -> DocumentState:
    """Return the state a document takes when a change to it is accepted.

    Args:
        current: State before the change.
        served_generation: Generation that search finds, 0 if none.
        deletes: Whether the change is a deletion.
    """
    if deletes:
        return check_transition(current, _S.DELETED)
    return check_transition(current, _S.STALE if served_generation else _S.PENDING)


def check_transition(current: DocumentState, target: DocumentState) -> DocumentState:
    """Return `target` if it may follow `current`.

    Raises:
        Conflict: It may not.
    """
    if target not in DOCUMENT_TRANSITIONS[current]:
        raise Conflict(f"a {current} document cannot become {target}")
    return target
