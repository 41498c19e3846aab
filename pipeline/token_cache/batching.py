"""Cuts a stream of keys and values into batches: one giant write would block the server, or be refused."""

from collections.abc import Iterable, Iterator

MAX_BATCH_BYTES = 1 << 20
"""Keys and values of one write."""

MAX_BATCH_ENTRIES = 512
"""Commands of one write, or keys of one read, expiry or deletion."""


def batches(
    items: Iterable[tuple[str, bytes]], *, max_bytes: int = MAX_BATCH_BYTES, max_entries: int = MAX_BATCH_ENTRIES
) -> Iterator[list[tuple[str, bytes]]]:
    """Yield the items in order, never empty, in batches within both bounds; an item over `max_bytes` goes alone."""
    batch: list[tuple[str, bytes]] = []
    size_bytes = 0
    for key, value in items:
        item_bytes = len(key) + len(value)
        if batch and (size_bytes + item_bytes > max_bytes or len(batch) == max_entries):
            yield batch
            batch, size_bytes = [], 0
        batch.append((key, value))
        size_bytes += item_bytes
    if batch:
        yield batch
