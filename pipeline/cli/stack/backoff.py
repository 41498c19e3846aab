"""How long a crashed process stays down: a pure decision."""

STABLE_S = 60.0
"""A process that lived this long starts with a clean record."""

_FIRST_S = 0.2
_LONGEST_S = 30.0


def backoff_s(crashes: int) -> float:
    """Return the seconds to wait before the next start after so many crashes in a row."""
    return min(_LONGEST_S, _FIRST_S * 2.0 ** min(crashes - 1, 16)) if crashes > 0 else 0.0


def count_crash(crashes: int, *, lived_s: float) -> int:
    """Return how many crashes in a row there are now that a process ended after so many seconds."""
    return 1 if lived_s >= STABLE_S else crashes + 1
