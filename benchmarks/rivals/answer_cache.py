"""A token cache as one writes it first: keyed by what was retrieved, JSON, with a time to live, filled on a miss.

Its clock is the caller's, so that an hour passes in a minute.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

TTL_S = 300.0


@dataclass(slots=True)
class AnswerCache:
    """Ids of whole contexts by SHA-256 over the sorted names of their passages."""

    ttl_s: float = TTL_S
    hits: int = 0
    stale: int = 0
    """Hits whose ids are not those of what the documents say now: the key knows no content."""
    misses: int = 0
    _entries: dict[str, tuple[float, str]] = field(default_factory=dict)

    def ask(self, passages: Sequence[str], ids: Sequence[int], *, now_s: float) -> None:
        """Look an answer up, store it if it is not there, and count what happened.

        Args:
            passages: Names of what was retrieved.
            ids: What they tokenize to now.
            now_s: The time, in seconds.
        """
        key = hashlib.sha256(json.dumps(sorted(passages)).encode()).hexdigest()
        found = self._entries.get(key)
        if found is not None and now_s - found[0] < self.ttl_s:
            self.hits += 1
            self.stale += found[1] != json.dumps(list(ids))
            return
        self.misses += 1
        self._entries[key] = (now_s, json.dumps(list(ids)))

    @property
    def hit_percent(self) -> float:
        """Share of hits in percent; 0 before the first question."""
        return 100.0 * self.hits / max(1, self.hits + self.misses)
