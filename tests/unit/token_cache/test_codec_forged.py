"""What somebody writes who can compute the checksum: corrupt at worst, never an error, never memory without bound."""

import tracemalloc

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import CorruptEntry
from pipeline.token_cache import MAX_IDS, Entry, codec, decode_entry, dictionary_of, encode_entry, entry_key
from pipeline.token_cache.codec import decode_entries
from pipeline.token_cache.dictionary import NO_WORD, Zstd
from tests.support.entries import FINGERPRINT, entry_of, passage_key_of

KEYS = [entry_key(FINGERPRINT, passage_key_of(str(number))) for number in range(4)]
O200K = dictionary_of("o200k_base")
IDS = [*range(0, 3000, 7), 70_000, 199_999]
PACKED = Zstd().compress(bytes(2 * len(IDS)))
REAL = encode_entry(KEYS[0], entry_of(*IDS), dictionary=O200K)
CORRUPT_WORDS = {
    "half a word": b"\1",
    "lone surrogate": b"\0\xd8",
    "word beyond the table": chr(NO_WORD + 1).encode("utf-16-le"),
    "separator": chr(NO_WORD).encode("utf-16-le"),
    "too many": b"\1\0\1\0",
}


def forged(key: str, payload: bytes, *, kind: int = 2, dictionary: int = 0, count: int = 1) -> bytes:
    """Return a value with any header and payload and a right checksum."""
    body = b"FF\2" + bytes([kind, 0, dictionary]) + (count - 1).to_bytes(2, "little") + payload
    return body + codec._tag(key, body, None, size=8)


@given(
    kind=st.integers(0, 5),
    dictionary=st.integers(0, 3),
    count=st.one_of(st.integers(1, 8), st.just(len(IDS)), st.just(MAX_IDS)),
    payload=st.one_of(
        st.binary(max_size=80),
        st.text(max_size=20).map(lambda text: text.encode("utf-16-le")),
        st.binary(max_size=200).map(Zstd().compress),
        st.tuples(st.integers(0, len(REAL) - 17), st.binary(max_size=4)).map(
            lambda patch: REAL[8 : 8 + patch[0]] + patch[1] + REAL[8 + patch[0] + len(patch[1]) : -8]
        ),
    ),
)
@example(kind=3, dictionary=0, count=len(IDS), payload=PACKED)
@example(kind=3, dictionary=1, count=len(IDS), payload=REAL[8:-8])
@example(kind=3, dictionary=2, count=len(IDS), payload=REAL[8:-8])
@example(kind=3, dictionary=1, count=len(IDS), payload=REAL[8:-8] + b"\0")
@example(kind=3, dictionary=1, count=len(IDS), payload=REAL[8:-8] * 2)
def test_a_forged_value_is_an_entry_of_so_many_ids_or_corrupt(
    kind: int, dictionary: int, count: int, payload: bytes
) -> None:
    try:
        entry = decode_entry(KEYS[0], forged(KEYS[0], payload, kind=kind, dictionary=dictionary, count=count))
    except CorruptEntry:
        return
    assert entry.token_count == count


@pytest.mark.parametrize("words", CORRUPT_WORDS.values(), ids=CORRUPT_WORDS)
@pytest.mark.parametrize("packed", [False, True])
def test_wrong_words_are_corrupt_and_spoil_no_entry_beside_them(words: bytes, *, packed: bool) -> None:
    bad = forged(KEYS[1], Zstd().compress(words), kind=3) if packed else forged(KEYS[1], words)
    good = [encode_entry(key, entry_of(5, 6)) for key in KEYS]
    found = decode_entries(KEYS, [good[0], bad, None, good[3]])
    assert isinstance(found[1], CorruptEntry)
    assert [found[0], found[2], found[3]] == [entry_of(5, 6), None, entry_of(5, 6)]
    with pytest.raises(CorruptEntry):
        decode_entry(KEYS[1], bad)


def test_two_forged_values_cannot_shift_what_lies_between_them() -> None:
    """Together they have as many words as they claim, and a separator where the first should end."""
    first = forged(KEYS[0], f"a{chr(NO_WORD)}b".encode("utf-16-le"), count=1)
    last = forged(KEYS[2], b"\1\0", count=3)
    between = encode_entry(KEYS[1], entry_of(5, 6, 7))
    found = decode_entries(KEYS[:3], [first, between, last])
    assert [type(one) for one in found] == [CorruptEntry, Entry, CorruptEntry]
    assert found[1] == entry_of(5, 6, 7)


@pytest.mark.parametrize("count", [1, 450, MAX_IDS])
def test_a_bomb_with_a_right_checksum_allocates_no_more_than_its_header_may_claim(count: int) -> None:
    with pytest.raises(CorruptEntry):
        decode_entry(KEYS[0], forged(KEYS[0], b"\0", kind=3))  # what is loaded once is loaded
    bomb = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(
            format=zstandard.FORMAT_ZSTD1_MAGICLESS, window_log=18, write_content_size=False
        )
    ).compress(bytes(1 << 26))
    value = forged(KEYS[0], bomb[2:], kind=3, count=count)
    tracemalloc.start()
    with pytest.raises(CorruptEntry):
        decode_entry(KEYS[0], value)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 3 * len(value) + 4 * count + 20_000


def test_no_valid_payload_makes_more_than_eight_bytes_an_id() -> None:
    count = MAX_IDS
    widest = ("\1" * (2 * count - 2) + chr(NO_WORD - 1)).encode("utf-16-le")
    value = forged(KEYS[0], Zstd().compress(widest), kind=3, count=count)
    with pytest.raises(CorruptEntry):
        decode_entry(KEYS[0], value)
    tracemalloc.start()
    with pytest.raises(CorruptEntry):
        decode_entry(KEYS[0], value)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < (4 + 8 + 8) * count + 50_000, "the words, as a string, and as words again: one after the other"


def test_entries_of_all_layouts_and_dictionaries_are_decoded_together() -> None:
    samples = [
        entry_of(*IDS),
        entry_of(2**32 - 1),
        entry_of(3, right_safe=False),
        entry_of(*range(9)),
    ]
    chosen = [O200K, O200K, dictionary_of(""), dictionary_of("cl100k_base")]
    values = [encode_entry(k, e, dictionary=d) for k, e, d in zip(KEYS, samples, chosen, strict=True)]
    assert decode_entries(KEYS, values) == samples
