"""Questions that wait are asked together, and nobody's mistake, or end, costs anybody else."""

import asyncio
from collections.abc import Sequence

import pytest

from pipeline.errors import InvalidInput, Unavailable
from pipeline.retrieval.joint_calls import JointCalls
from tests.support.polling import eventually_async

pytestmark = pytest.mark.anyio

WRONG = -1


class Index:
    """Doubles numbers once it is let go; refuses a wrong one, and with it all that were asked together."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.let_go = asyncio.Event()
        self._is_away = is_away

    async def __call__(self, subject: str, numbers: Sequence[int]) -> list[int]:
        self.calls.append((subject, list(numbers)))
        await self.let_go.wait()
        if self._is_away:
            raise Unavailable("away", service="qdrant")
        if WRONG in numbers:
            raise InvalidInput("wrong")
        return [2 * number for number in numbers]

    async def called(self, times: int) -> None:
        async def is_so() -> bool:
            return len(self.calls) >= times

        await eventually_async(is_so)


def joint(index: Index, *, max_calls: int = 1, max_joined: int = 4) -> JointCalls[int, int]:
    return JointCalls(index, max_calls=max_calls, max_joined=max_joined)


async def ask_behind(index: Index, calls: JointCalls[int, int], numbers: Sequence[int]) -> "list[asyncio.Task[int]]":
    """Let one question be under way, then ask others; return the tasks of those."""
    first = asyncio.create_task(calls.ask("a", 0))
    await index.called(1)
    others = [asyncio.create_task(calls.ask("a", number)) for number in numbers]
    await asyncio.sleep(0)  # they wait now
    index.let_go.set()
    assert await first == 0
    return others


async def test_what_waits_is_asked_together_up_to_a_limit() -> None:
    index = Index()
    others = await ask_behind(index, joint(index), [1, 2, 3, 4, 5])
    assert await asyncio.gather(*others) == [2, 4, 6, 8, 10]
    assert index.calls == [("a", [0]), ("a", [1, 2, 3, 4]), ("a", [5])]


async def test_nobody_waits_for_another_answer_while_calls_are_free() -> None:
    index = Index()
    calls = joint(index, max_calls=3)
    asked = []
    for number in range(3):
        asked.append(asyncio.create_task(calls.ask("a", number)))
        await index.called(number + 1)
    assert [numbers for _, numbers in index.calls] == [[0], [1], [2]]
    index.let_go.set()
    assert await asyncio.gather(*asked) == [0, 2, 4]


async def test_subjects_are_not_mixed_and_take_turns() -> None:
    index = Index()
    calls = joint(index, max_joined=1)
    asked = [asyncio.create_task(calls.ask(subject, number)) for number, subject in enumerate("aaabb")]
    index.let_go.set()
    assert await asyncio.gather(*asked) == [0, 2, 4, 6, 8]
    assert [subject for subject, _ in index.calls] == ["a", "b", "a", "b", "a"]


async def test_a_wrong_question_fails_alone() -> None:
    index = Index()
    right, wrong, other = await ask_behind(index, joint(index), [1, WRONG, 2])
    assert (await right, await other) == (2, 4)
    with pytest.raises(InvalidInput):
        await wrong


async def test_all_learn_that_the_index_is_away_and_it_is_asked_once() -> None:
    index = Index(is_away=True)
    calls = joint(index)
    asked = [asyncio.create_task(calls.ask("a", number)) for number in range(3)]
    index.let_go.set()
    for each in asked:
        with pytest.raises(Unavailable):
            await each
    assert len(index.calls) == 1


async def test_whoever_leaves_takes_no_answer_from_others() -> None:
    index = Index()
    calls = joint(index)
    leaver, stayer = (asyncio.create_task(calls.ask("a", number)) for number in (1, 2))
    await index.called(1)
    leaver.cancel()
    index.let_go.set()
    assert await stayer == 4
    assert leaver.cancelled()


async def test_whoever_left_before_the_call_is_not_asked_for() -> None:
    index = Index()
    calls = joint(index)
    first = asyncio.create_task(calls.ask("a", 0))
    await index.called(1)
    leaver = asyncio.create_task(calls.ask("a", 1))
    await asyncio.sleep(0)
    leaver.cancel()
    index.let_go.set()
    await first
    await calls.close()
    assert index.calls == [("a", [0])]


async def test_closing_ends_what_is_under_way() -> None:
    index = Index()
    calls = joint(index)
    asked = asyncio.create_task(calls.ask("a", 1))
    await index.called(1)
    await calls.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
