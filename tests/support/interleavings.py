"""Exhaustive search over the interleavings of a small model: every state that any order of steps can lead to.

States are immutable and hashable; equal ones are visited once. What is found wrong comes with the shortest way there.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Violation:
    """A state in which a claim does not hold."""

    claim: str
    """What was found wrong."""
    trace: tuple[str, ...]
    """The steps that led there, in order; no other way is shorter."""

    def __str__(self) -> str:
        return "\n  ".join([self.claim, *self.trace])


@dataclass(frozen=True, slots=True)
class Exploration(Generic[State]):
    """What a search saw."""

    states: int
    steps: int
    ends: int
    """States from which no step leads on."""
    violation: Violation | None


def explore(
    start: State,
    *,
    successors: Callable[[State], Iterable[tuple[str, State]]],
    wrong: Callable[[State, bool], str | None],
    max_states: int,
) -> Exploration[State]:
    """Visit every reachable state, nearest first, until one is wrong.

    Args:
        start: Where every order begins.
        successors: Each possible next step's name, and the state after it.
        wrong: Says what is wrong in a state, None if nothing; the second argument tells whether no step leads on.
        max_states: A model that outgrows this is a mistake in the model.
    """
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    waiting = deque([start])
    steps = ends = 0
    while waiting:
        state = waiting.popleft()
        following = list(successors(state))
        steps += len(following)
        ends += not following
        claim = wrong(state, not following)
        if claim is not None:
            return Exploration(len(came_from), steps, ends, Violation(claim, _trace(state, came_from)))
        for name, successor in following:
            if successor not in came_from:
                came_from[successor] = (state, name)
                waiting.append(successor)
        assert len(came_from) <= max_states, f"the model has over {max_states} states"
    return Exploration(len(came_from), steps, ends, None)


def _trace(state: State, came_from: dict[State, tuple[State, str] | None]) -> tuple[str, ...]:
    names: list[str] = []
    while (step := came_from[state]) is not None:
        state, name = step
        names.append(name)
    return tuple(reversed(names))
