"""States of jobs and runs: one sentence each on who moves them, one transition table each.

Job                          ┌──── back-off / interrupted ────┐
              ┌─────────┐ claim ┌─────────┐ finish ┌───────────┐
    create ──▶│ pending │──────▶│ running │───────▶│ succeeded │
              └────┬────┘       └────┬────┘        └───────────┘
                   │ cancel          ├──▶ partial    some documents died
                   ▼                 ├──▶ dead       it failed for good
               cancelled ◀───────────┘

Run     pending ──▶ running ──▶ succeeded | partial | failed
           │  ▲        │  ▲
           ▼  │        ▼  │         pending, running, paused ──▶ cancelled
          paused      paused
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar


class JobState(StrEnum):
    """State of what one worker claims."""

    PENDING = "pending"
    """Waiting; a worker's claim moves it to running, a cancel to cancelled."""
    RUNNING = "running"
    """Owned by the holder of its fence until the lease ends; the holder or a rescue moves it."""
    SUCCEEDED = "succeeded"
    """Terminal: everything it took is published or was superseded."""
    PARTIAL = "partial"
    """Terminal: some of its documents are dead."""
    DEAD = "dead"
    """Terminal: the job itself failed for good."""
    CANCELLED = "cancelled"
    """Terminal: its run was cancelled, its corpus dropped, or a younger job took its work over."""


class RunState(StrEnum):
    """State of a piece of work an operator can name."""

    PENDING = "pending"
    """Accepted; the first finished item moves it to running."""
    RUNNING = "running"
    """Some items are finished; the last one moves it to its end."""
    PAUSED = "paused"
    """An operator stopped it for now; resume moves it back."""
    SUCCEEDED = "succeeded"
    """Terminal: no item is dead."""
    PARTIAL = "partial"
    """Terminal: some items are dead."""
    FAILED = "failed"
    """Terminal: it could not run."""
    CANCELLED = "cancelled"
    """Terminal: an operator ended it."""


class Outcome(StrEnum):
    """What became of one document in one run."""

    PENDING = "pending"
    DONE = "done"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"
    DEAD = "dead"
    CANCELLED = "cancelled"


_J, _R = JobState, RunState
_END: frozenset[RunState] = frozenset({_R.SUCCEEDED, _R.PARTIAL, _R.FAILED, _R.CANCELLED})

JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        _J.PENDING: frozenset({_J.RUNNING, _J.CANCELLED}),
        _J.RUNNING: frozenset({_J.PENDING, _J.SUCCEEDED, _J.PARTIAL, _J.DEAD, _J.CANCELLED}),
        _J.SUCCEEDED: frozenset(),
        _J.PARTIAL: frozenset(),
        _J.DEAD: frozenset(),
        _J.CANCELLED: frozenset(),
    }
)

RUN_TRANSITIONS: Mapping[RunState, frozenset[RunState]] = MappingProxyType(
    {
        _R.PENDING: frozenset({_R.RUNNING, _R.PAUSED}) | _END,
        _R.RUNNING: frozenset({_R.PAUSED}) | _END,
        _R.PAUSED: frozenset({_R.PENDING, _R.RUNNING, _R.CANCELLED}),
        # A retry of dead items reopens a run that ended partial.
        _R.PARTIAL: frozenset({_R.RUNNING}),
        _R.SUCCEEDED: frozenset(),
        _R.FAILED: frozenset(),
        _R.CANCELLED: frozenset(),
    }
)

RUN_ENDED: frozenset[RunState] = _END
"""States in which a run does nothing more by itself."""

_State = TypeVar("_State", JobState, RunState)


def sources(transitions: Mapping[_State, frozenset[_State]], target: _State) -> tuple[_State, ...]:
    """Return the states from which `target` may be entered: the WHERE of every UPDATE that sets it."""
    return tuple(state for state, targets in transitions.items() if target in targets and state is not target)
