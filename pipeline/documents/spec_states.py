"""States of a spec in one corpus, and who moves it out of each.

            build                activate               another is activated              drop
 (none) ───────────▶ building ────────────▶ active ──────────────────────────▶ retiring ────────▶ dropped
                        │                     ▲         activate, roll back        │                 │
                        │ drop                └────────────────────────────────────┘                 │ build
                        └──────────▶ dropped                              building ◀─────────────────┘

Every publication fills all that are not dropped, so a spec can be activated the moment nothing of it is missing, and
left again without a miss. Exactly one is active.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from pipeline.errors import Conflict


class CorpusSpecState(StrEnum):
    """What a corpus does with a spec."""

    BUILDING = "building"
    """Filled by every publication and by a backfill, read by nobody. `spec activate` moves it."""
    ACTIVE = "active"
    """Filled and read. Only activating another one moves it."""
    RETIRING = "retiring"
    """Was active, and is still filled, so that rolling back costs nothing. `spec drop` ends that."""
    DROPPED = "dropped"
    """Not filled any more; garbage collection takes its entries. `spec build` begins anew."""


_S = CorpusSpecState

SPEC_TRANSITIONS: Mapping[CorpusSpecState, frozenset[CorpusSpecState]] = MappingProxyType(
    {
        _S.BUILDING: frozenset({_S.ACTIVE, _S.DROPPED}),
        _S.ACTIVE: frozenset({_S.RETIRING}),
        _S.RETIRING: frozenset({_S.ACTIVE, _S.DROPPED}),
        _S.DROPPED: frozenset({_S.BUILDING}),
    }
)
"""From each state, where it may go."""


def check_spec_transition(spec_id: str, corpus: str, current: CorpusSpecState, target: CorpusSpecState) -> None:
    """Go on only if a spec of a corpus may become `target`.

    Raises:
        Conflict: It may not.
    """
    if target not in SPEC_TRANSITIONS[current]:
        raise Conflict(f"spec {spec_id} is {current} in corpus {corpus!r}: it cannot become {target}")
