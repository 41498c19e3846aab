"""Claims of the demo: each is checked, said, and remembered. One that does not hold ends the demo with exit code 1."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence, and whether it was found to be true."""

    sentence: str
    held: bool
    expected: str = ""
    """What should have been seen; said only when it was not."""
    seen: str = ""


class CannotGoOn(Exception):
    """The rest of the demo needs something that did not happen; the message is one sentence."""


class Checks:
    """Takes claims one by one."""

    def __init__(self, say: Callable[[Claim], None]) -> None:
        """Remember nothing yet.

        Args:
            say: Shows a claim as soon as it is checked.
        """
        self._say = say
        self.claims: list[Claim] = []
        """In the order in which they were checked."""

    @property
    def all_held(self) -> bool:
        """Whether something was claimed, and all of it is true."""
        return bool(self.claims) and not self.failed

    @property
    def failed(self) -> list[Claim]:
        """The claims that are not true."""
        return [claim for claim in self.claims if not claim.held]

    def equal(self, sentence: str, *, expected: object, seen: object) -> bool:
        """Claim that what was seen is what was expected, and return whether it is."""
        return self.holds(sentence, held=expected == seen, expected=str(expected), seen=str(seen))

    def holds(self, sentence: str, *, held: object, expected: str, seen: str) -> bool:
        """Make a claim whose truth was found out elsewhere, and return it."""
        claim = Claim(sentence, bool(held), expected, seen)
        self.claims.append(claim)
        self._say(claim)
        return claim.held

    @contextmanager
    def errors_are_failures(self) -> Iterator[None]:
        """Turn what keeps the demo from going on, in a `with` block, into a claim that did not hold."""
        try:
            yield
        except (CannotGoOn, httpx.HTTPError, OSError) as error:
            seen = f"{type(error).__name__}: {error}"
            self.holds("the demo went on to its end", held=False, expected="no error", seen=seen)
