"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    """As it should be."""
    WARN = "warn"
    """It works, and something about it will hurt."""
    FAIL = "fail"
    """Something does not work, or a guarantee does not hold."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis."""

    level: Level
    subject: str
    """What was looked at: `database`, `cache`, `queue bulk` …"""
    message: str
    """What was found, in one sentence."""
    remedy: str | None = None
    """What to do about it; None when all is well."""

    @classmethod
    def ok(cls, subject: str, message: str) -> Self:
        """Return a finding that all is well."""
        return cls(Level.OK, subject, message)

    @classmethod
    def warn(cls, subject: str, message: str, *, remedy: str) -> Self:
        """Return a finding that something will hurt."""
        return cls(Level.WARN, subject, message, remedy)

    @classmethod
    def fail(cls, subject: str, message: str, *, remedy: str) -> Self:
        """Return a finding that something does not work."""
        return cls(Level.FAIL, subject, message, remedy)
