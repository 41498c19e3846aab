"""The cache's mark says with which secret entries are signed, and never the secret."""

import pytest

from pipeline.token_cache.marks import EntryRights, KeyMismatchError, split_mark
from tests.support.clocks import ManualClock

EPOCH = "0f" * 16


def test_a_mark_says_nothing_about_the_secret_and_differs_with_epoch_and_secret() -> None:
    marks = {EntryRights(key).mark(epoch) for key in (None, b"a", b"b") for epoch in (EPOCH, "11")}
    assert len(marks) == 6
    mark = EntryRights(b"topsecret").mark(EPOCH)
    assert b"topsecret".hex() not in mark
    assert split_mark(mark.encode()) == (EPOCH, mark.removeprefix(f"{EPOCH}."))


@pytest.mark.parametrize("mark", [None, b"", EPOCH.encode(), b"\xff\xfe"])
def test_nobody_is_refused_where_the_mark_says_nothing_of_a_key(mark: bytes | None) -> None:
    EntryRights(b"key").require(mark)


def test_a_refused_process_reports_at_most_every_ten_minutes() -> None:
    said: list[str] = []
    clock = ManualClock()
    rights = EntryRights(None, report=said.append, clock=clock)
    mark = EntryRights(b"key").mark(EPOCH).encode()
    for _ in range(3):
        with pytest.raises(KeyMismatchError, match="has no FOREFILL_ENTRY_HMAC_KEY"):
            rights.require(mark)
    assert len(said) == 1
    clock.advance(601)
    with pytest.raises(KeyMismatchError):
        rights.require(mark)
    assert len(said) == 2
