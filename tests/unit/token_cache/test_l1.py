"""L1 holds recent entries within its bytes."""

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.token_cache import Entry, L1Cache
from pipeline.token_cache.l1 import size_bytes
from tests.support.entries import FINGERPRINT, OTHER_FINGERPRINT, keys_of, numbered_pairs, passage_key_of


@given(sizes=st.lists(st.integers(1, 3000), max_size=60), max_bytes=st.integers(0, 30_000))
def test_l1_never_holds_more_than_its_bound(sizes: list[int], max_bytes: int) -> None:
    l1 = L1Cache(max_bytes)
    for number, size in enumerate(sizes):
        entry = Entry(np.zeros(size, dtype=np.uint32), right_safe=True)
        l1.put_many(FINGERPRINT, [(passage_key_of(str(number)), entry)])
        assert l1.used_bytes <= max_bytes


def test_the_least_recently_used_entry_goes_first() -> None:
    pairs = numbered_pairs(3)
    a, b, c = keys_of(pairs)
    l1 = L1Cache(2 * size_bytes(*pairs[0]))
    l1.put_many(FINGERPRINT, pairs[:2])
    l1.get_many(FINGERPRINT, [a])
    l1.put_many(FINGERPRINT, pairs[2:])
    assert l1.get_many(FINGERPRINT, [a, b, c]) == [pairs[0][1], None, pairs[2][1]]


def test_an_entry_larger_than_the_bound_is_not_kept_and_drops_nothing() -> None:
    (key, small), large = numbered_pairs(1)[0], Entry(np.zeros(5000, dtype=np.uint32), right_safe=True)
    l1 = L1Cache(2 * size_bytes(key, small))
    l1.put_many(FINGERPRINT, [(key, small), (passage_key_of("large"), large)])
    assert l1.get_many(FINGERPRINT, [key, passage_key_of("large")]) == [small, None]


def test_an_entry_decoded_with_others_does_not_keep_their_memory() -> None:
    whole = np.arange(1000, dtype=np.uint32)
    whole.flags.writeable = False
    l1 = L1Cache(1 << 20)
    l1.put_many(FINGERPRINT, [(passage_key_of("part"), Entry(whole[10:20], right_safe=True))])
    (kept,) = l1.get_many(FINGERPRINT, [passage_key_of("part")])
    assert kept is not None
    assert len(kept.packed) == kept.ids.nbytes
    assert kept.ids.tolist() == list(range(10, 20))


def test_specs_do_not_share_entries() -> None:
    l1 = L1Cache(1 << 20)
    pairs = numbered_pairs(1)
    l1.put_many(FINGERPRINT, pairs)
    assert l1.get_many(OTHER_FINGERPRINT, keys_of(pairs)) == [None]


def test_clear_forgets_everything() -> None:
    l1 = L1Cache(1 << 20)
    l1.put_many(FINGERPRINT, numbered_pairs(3))
    l1.clear()
    assert (len(l1), l1.used_bytes) == (0, 0)


def test_threads_share_l1_without_breaking_its_bound() -> None:
    pairs = numbered_pairs(200)
    l1 = L1Cache(50 * size_bytes(*pairs[0]))
    wrong: list[object] = []

    def work() -> None:
        for key, entry in pairs * 5:
            l1.put_many(FINGERPRINT, [(key, entry)])
            wrong.extend(found for found in l1.get_many(FINGERPRINT, [key]) if found not in (None, entry))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert l1.used_bytes == 50 * size_bytes(*pairs[0])
