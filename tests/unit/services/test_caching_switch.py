"""When a process that switched caching off may use entries again, whatever snapshot of SQL it sees."""

from collections.abc import Callable

import pytest

from pipeline.errors import Unavailable
from pipeline.services.caching_switch import CachingSwitch
from pipeline.services.configuration import CorpusView, SpecCaching
from tests.support.polling import eventually_async

pytestmark = pytest.mark.anyio

SPEC = "o200k_base/plain"
OTHER = "cl100k_base/plain"


def view(*, enabled: bool = True, enabled_at: int | None = None) -> CorpusView:
    caching = (SpecCaching(SPEC, enabled, enabled_at), SpecCaching(OTHER))
    return CorpusView("docs", "docs.1", SPEC, "f", "e", caching)


class Sql:
    """Rows that are written at a time; unreachable for the first calls."""

    def __init__(self, *, at: int | None = 100, failures: int = 0) -> None:
        self.at = at
        self.failures = failures
        self.written: list[tuple[str, str, str]] = []

    def __call__(self, collection: str, spec_id: str, reason: str) -> int | None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("gone", service="database")
        self.written.append((collection, spec_id, reason))
        return self.at


def switch(sql: Sql | None, *, forget: Callable[[], None] = lambda: None, pause_s: float = 0.0) -> CachingSwitch:
    return CachingSwitch(record=sql, forget=forget, pause_s=lambda _attempt: pause_s)


async def test_a_switch_off_counts_at_once_and_for_that_corpus_and_spec_alone() -> None:
    made = switch(Sql())
    made.switch_off(view(), SPEC, reason="why")
    assert not made.allows(view(), SPEC)
    assert made.allows(view(), OTHER)
    assert made.allows(CorpusView("docs", "docs.2", SPEC, "f", "e"), SPEC)  # made anew under the same name
    await made.close()


async def test_a_snapshot_from_before_the_switch_off_does_not_undo_it() -> None:
    made = switch(Sql(at=100))
    made.switch_off(view(enabled_at=50), SPEC, reason="why")
    assert not made.allows(view(enabled_at=50), SPEC)  # the row is not written yet
    await made.drain()
    assert not made.allows(view(), SPEC)
    assert not made.allows(view(enabled_at=50), SPEC)
    assert not made.allows(view(enabled=False, enabled_at=50), SPEC)
    assert made.allows(view(enabled_at=101), SPEC)
    assert not made.allows(view(enabled_at=50), SPEC)  # a request that took its snapshot long ago


async def test_what_is_enabled_again_can_be_switched_off_again() -> None:
    sql = Sql(at=100)
    made = switch(sql)
    made.switch_off(view(), SPEC, reason="first")
    await made.drain()
    made.switch_off(view(), SPEC, reason="a question that was on its way")
    await made.drain()
    assert [reason for *_, reason in sql.written] == ["first"]
    sql.at = 200
    made.switch_off(view(enabled_at=150), SPEC, reason="second")
    await made.drain()
    assert [reason for *_, reason in sql.written] == ["first", "second"]
    assert not made.allows(view(enabled_at=150), SPEC)


async def test_a_row_switches_off_a_process_that_found_nothing() -> None:
    assert not switch(Sql()).allows(view(enabled=False), SPEC)


async def test_without_sql_caching_is_off_and_the_row_is_written_when_it_is_back() -> None:
    sql = Sql(failures=3)
    made = switch(sql)
    made.switch_off(view(), SPEC, reason="why")
    assert not made.allows(view(), SPEC)
    await made.drain()
    assert sql.written == [("docs.1", SPEC, "why")]


async def test_a_process_that_ends_tries_once_more_to_write_what_it_knows() -> None:
    sql = Sql(failures=1)
    made = switch(sql, pause_s=3_600)
    made.switch_off(view(), SPEC, reason="why")

    async def has_failed() -> bool:
        return not sql.failures

    await eventually_async(has_failed, describe="a failed attempt")
    await made.close()
    assert sql.written == [("docs.1", SPEC, "why")]


@pytest.mark.parametrize("sql", [None, Sql(at=None)], ids=["no SQL", "no row"])
async def test_without_a_row_nobody_can_enable_it_again_in_this_process(sql: Sql | None) -> None:
    made = switch(sql)
    made.switch_off(view(), SPEC, reason="why")
    await made.drain()
    assert not made.allows(view(enabled_at=10**15), SPEC)


async def test_entries_in_memory_are_forgotten_once_when_caching_was_enabled_again() -> None:
    forgotten: list[None] = []
    made = switch(Sql(), forget=lambda: forgotten.append(None))
    assert made.allows(view(), SPEC)
    assert not forgotten
    for _ in range(3):  # also where this process had no question while it was off
        assert made.allows(view(enabled_at=100), SPEC)
    assert len(forgotten) == 1
    assert made.allows(view(enabled_at=200), SPEC)
    assert len(forgotten) == 2
