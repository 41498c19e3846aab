"""What every part of the demo works with."""

from dataclasses import dataclass
from pathlib import Path

import tiktoken

from demo.checks import Checks
from demo.client import Answer, Client
from demo.sample import Question
from demo.screen import Screen
from demo.stack import Ready, Stack


@dataclass(frozen=True, slots=True)
class Scene:
    """A running stack, and whoever looks at it."""

    screen: Screen
    checks: Checks
    stack: Stack
    ready: Ready
    client: Client
    judge: tiktoken.Encoding
    """tiktoken itself: says which ids are right."""
    began: float
    """When `forefill up` was started, by the monotonic clock."""
    folder: Path
    """For files that the demo writes."""
    texts: dict[str, str]
    """The sample's documents by id, as first ingested."""
    questions: list[Question]

    def is_exact(self, answer: Answer) -> bool:
        """Return whether an answer's ids are tiktoken's for its prompt."""
        return answer.token_ids == self.judge.encode_ordinary(answer.prompt_text)

    def ids_of(self, answer: Answer, fragment: str, *, limit: int) -> list[int]:
        """Return the ids, among those of an answer, in which a fragment of its prompt begins."""
        begin = answer.prompt_text.index(fragment)
        _, offsets = self.judge.decode_with_offsets(answer.token_ids)
        first = max(place for place, offset in enumerate(offsets) if offset <= begin)
        return answer.token_ids[first : first + limit]
