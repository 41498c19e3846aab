"""The in-memory twin is bounded and forgets what has expired, as a server is and does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Unavailable
from pipeline.token_cache import MemoryStore, MemoryTokenReader, MemoryTokenWriter, MissReason
from tests.support.clocks import ManualClock
from tests.support.entries import FINGERPRINT, keys_of, numbered_pairs

pytestmark = pytest.mark.anyio


@given(sizes=st.lists(st.integers(0, 300), max_size=50))
def test_the_store_stays_within_its_bytes_and_keeps_the_newest(sizes: list[int]) -> None:
    store = MemoryStore(max_bytes=500)
    for number, size in enumerate(sizes):
        store.set(str(number), bytes(size))
        assert store.get(str(number)) == bytes(size)
        assert store.used_bytes <= store.max_bytes == 500


async def test_an_entry_is_gone_after_its_time() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    pairs = numbered_pairs(2)
    MemoryTokenWriter(store, ttl_s=300).write(FINGERPRINT, pairs)
    reader = MemoryTokenReader(store)
    clock.advance(299.9)
    assert await reader.read(FINGERPRINT, keys_of(pairs)) == [entry for _, entry in pairs]
    clock.advance(0.2)
    assert await reader.read(FINGERPRINT, keys_of(pairs)) == [MissReason.ABSENT] * 2


async def test_a_store_that_is_switched_off_fails_like_a_server_that_is_gone() -> None:
    store = MemoryStore()
    store.available = False
    with pytest.raises(Unavailable) as caught:
        await MemoryTokenReader(store).read(FINGERPRINT, keys_of(numbered_pairs(1)))
    assert caught.value.service == "cache"
    with pytest.raises(Unavailable):
        MemoryTokenWriter(store).write(FINGERPRINT, numbered_pairs(1))
