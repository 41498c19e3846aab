"""Questions that wait for a free call become one call: under load each costs a part of what a call costs.

Without load nothing waits, so nothing is joined. A call is a task of its own, so that whoever leaves takes no answer
from others; and a question that is refused is asked again alone, so that it costs others nothing either.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from pipeline.errors import ForefillError, Unavailable

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")

Call: TypeAlias = Callable[[str, Sequence[_Question]], Awaitable[Sequence[_Answer]]]
"""Answers questions about one subject, in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked(Generic[_Question, _Answer]):
    question: _Question
    answer: "asyncio.Future[_Answer]"


class JointCalls(Generic[_Question, _Answer]):
    """Bounds the calls that are under way, and fills each with what waits. For one event loop."""

    def __init__(self, call: Call[_Question, _Answer], *, max_calls: int, max_joined: int) -> None:
        """Remember what is needed.

        Args:
            call: Asks; raises one error for all questions that it is given.
            max_calls: Calls under way at once.
            max_joined: Questions in one call.
        """
        self._call = call
        self._max_calls = max_calls
        self._max_joined = max_joined
        self._waiting: dict[str, deque[_Asked[_Question, _Answer]]] = {}
        self._callers: set[asyncio.Task[None]] = set()

    async def ask(self, subject: str, question: _Question) -> _Answer:
        """Return the answer.

        Raises:
            ForefillError: What the call raised.
        """
        asked: _Asked[_Question, _Answer] = _Asked(question, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(subject, deque()).append(asked)
        if len(self._callers) < self._max_calls:
            task = asyncio.create_task(self._ask_waiting())
            self._callers.add(task)
            task.add_done_callback(self._callers.discard)
        return await asked.answer

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._callers:
            task.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)

    async def _ask_waiting(self) -> None:
        """Make calls until nothing waits."""
        while self._waiting:
            subject, waiting = next(iter(self._waiting.items()))
            taken = [waiting.popleft() for _ in range(min(self._max_joined, len(waiting)))]
            del self._waiting[subject]
            if waiting:
                self._waiting[subject] = waiting  # behind the other subjects
            await self._answer(subject, [asked for asked in taken if not asked.answer.done()])

    async def _answer(self, subject: str, taken: Sequence[_Asked[_Question, _Answer]]) -> None:
        if not taken:
            return
        try:
            answers = await self._call(subject, [asked.question for asked in taken])
        except BaseException as error:
            if len(taken) > 1 and isinstance(error, ForefillError) and not isinstance(error, Unavailable):
                for asked in taken:
                    await self._answer(subject, [asked])
                return
            for asked in taken:
                if not asked.answer.done():
                    asked.answer.set_exception(error) if isinstance(error, Exception) else asked.answer.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for asked, answer in zip(taken, answers, strict=True):
            if not asked.answer.done():
                asked.answer.set_result(answer)
