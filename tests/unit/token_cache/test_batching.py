"""Batches hold everything, in order, within their bounds."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.token_cache.batching import batches

ITEMS = st.lists(st.tuples(st.text("ab", max_size=5), st.binary(max_size=60)), max_size=60)


@given(items=ITEMS, max_bytes=st.integers(1, 200), max_entries=st.integers(1, 10))
def test_batches_keep_items_and_order_within_both_bounds(
    items: list[tuple[str, bytes]], max_bytes: int, max_entries: int
) -> None:
    made = list(batches(items, max_bytes=max_bytes, max_entries=max_entries))
    assert [item for batch in made for item in batch] == items
    for batch in made:
        assert 0 < len(batch) <= max_entries
        assert len(batch) == 1 or sum(len(key) + len(value) for key, value in batch) <= max_bytes


def test_items_are_taken_no_further_than_the_batch_needs() -> None:
    items = iter([(f"{number:02d}", bytes(8)) for number in range(100)])
    first = next(batches(items, max_bytes=50, max_entries=100))
    assert [key for key, _ in first] == ["00", "01", "02", "03", "04"]
    assert next(items)[0] == "06"
