"""An entry survives its bytes, and no other bytes are an entry."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CorruptEntry, InvalidInput
from pipeline.framing import RaggedIds
from pipeline.token_cache import (
    MAX_IDS,
    Dictionary,
    Entry,
    codec,
    decode_entry,
    dictionary_of,
    encode_entry,
    entry_key,
    joined_entries,
)
from tests.support.entries import FINGERPRINT, OTHER_FINGERPRINT, entry_of, passage_key_of

KEY = entry_key(FINGERPRINT, passage_key_of("a"))
SECRETS = st.sampled_from([None, b"secret", b"another secret"])
IDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=600)
KNOWN_IDS = st.lists(st.integers(0, 200_000), min_size=1, max_size=600)
SAMPLE = encode_entry(KEY, entry_of(1, 2, 3))
DICTIONARIES = st.sampled_from(["", "o200k_base", "cl100k_base"]).map(dictionary_of)
VERSION_1 = {
    None: bytes.fromhex("46460101010000000200000001000000040302011c476f680089bc1aa020e7c547aeed95"),
    b"secret": bytes.fromhex(
        "4646010103000000020000000100000004030201074e5b2a7ea6db5e3fb39d221c497dc23db4cfd8f4a6fc677c310acf2099568b"
    ),
}
"""Ids 1 and 0x01020304 under `KEY`, as the first version wrote them, by secret."""


@given(ids=IDS, right_safe=st.booleans(), secret=SECRETS, dictionary=DICTIONARIES)
def test_an_entry_survives_its_bytes(
    ids: list[int],
    right_safe: bool,  # noqa: FBT001  # drawn by Hypothesis
    secret: bytes | None,
    dictionary: Dictionary,
) -> None:
    entry = entry_of(*ids, right_safe=right_safe)
    decoded = decode_entry(KEY, encode_entry(KEY, entry, hmac_key=secret, dictionary=dictionary), hmac_key=secret)
    assert decoded == entry
    assert decoded.ids.tolist() == ids
    assert decoded.ids.dtype == np.uint32
    assert decoded.token_count == len(ids)


@given(many=st.lists(st.one_of(IDS, KNOWN_IDS), max_size=8), secret=SECRETS, dictionary=DICTIONARIES)
def test_entries_encoded_together_have_the_bytes_of_each_alone(
    many: list[list[int]], secret: bytes | None, dictionary: Dictionary
) -> None:
    """Also where some of them have ids that no dictionary has a word for."""
    entries = [entry_of(*ids, right_safe=len(ids) % 2 == 0) for ids in many]
    keys = [entry_key(FINGERPRINT, passage_key_of(str(number))) for number in range(len(many))]
    ids, safe = RaggedIds.of([entry.ids for entry in entries]), [entry.right_safe for entry in entries]
    together = codec.encode_entries(keys, ids, safe, hmac_key=secret, dictionary=dictionary)
    alone = [encode_entry(k, e, hmac_key=secret, dictionary=dictionary) for k, e in zip(keys, entries, strict=True)]
    assert together == alone
    assert codec.decode_entries(keys, together, hmac_key=secret) == entries


@given(value=st.binary(max_size=300), secret=SECRETS)
def test_random_bytes_are_corrupt_and_nothing_worse(value: bytes, secret: bytes | None) -> None:
    with pytest.raises(CorruptEntry):
        decode_entry(KEY, value, hmac_key=secret)


@given(data=st.data(), ids=IDS, secret=SECRETS)
def test_any_damage_to_an_entry_is_noticed(data: st.DataObject, ids: list[int], secret: bytes | None) -> None:
    value = encode_entry(KEY, entry_of(*ids), hmac_key=secret)
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, min(len(value), start + 20)))
    damaged = value[:start] + data.draw(st.binary(max_size=20)) + value[end:]
    if damaged == value:
        return
    with pytest.raises(CorruptEntry):
        decode_entry(KEY, damaged, hmac_key=secret)


@given(header=st.binary(min_size=12, max_size=12), tail=st.binary(max_size=64))
def test_a_header_that_claims_much_allocates_nothing(header: bytes, tail: bytes) -> None:
    claims = b"FF\1\1\0\0\0\0" + struct.pack("<I", 2**32 - 1)
    for value in (header + tail, claims + tail):
        with pytest.raises(CorruptEntry):
            decode_entry(KEY, value)


@pytest.mark.parametrize(
    ("position", "byte"),
    [(0, b"X"), (2, b"\3"), (3, b"\4"), (4, b"\x80"), (5, b"\xff"), (6, b"\3")],
    ids=["magic", "version", "codec", "flags", "dictionary", "count"],
)
def test_an_entry_of_another_layout_is_corrupt_even_with_a_good_tag(position: int, byte: bytes) -> None:
    with pytest.raises(CorruptEntry):
        decode_entry(KEY, sealed(SAMPLE[:position] + byte + SAMPLE[position + 1 : -8]))


@pytest.mark.parametrize("secret", [None, b"secret"])
def test_a_value_moved_to_another_key_is_corrupt(secret: bytes | None) -> None:
    value = encode_entry(KEY, entry_of(1, 2, 3), hmac_key=secret)
    for key in (entry_key(FINGERPRINT, passage_key_of("b")), entry_key(OTHER_FINGERPRINT, passage_key_of("a"))):
        with pytest.raises(CorruptEntry):
            decode_entry(key, value, hmac_key=secret)


@pytest.mark.parametrize(("written", "read"), [(None, b"s"), (b"s", None), (b"s", b"t"), (b"", b"s")])
def test_entries_of_a_deployment_with_another_secret_are_corrupt(written: bytes | None, read: bytes | None) -> None:
    with pytest.raises(CorruptEntry):
        decode_entry(KEY, encode_entry(KEY, entry_of(7), hmac_key=written), hmac_key=read)


def test_the_layout_is_what_the_module_says() -> None:
    value = encode_entry(KEY, entry_of(1, 0xD800, 0x10FFF, right_safe=True))
    assert value[:-8].hex() == "46460202" + "01" + "00" + "0200" + "0100" + "00e0" + "05d8ffdf"
    assert len(value) == 8 + 8 + 8
    assert len(encode_entry(KEY, entry_of(1), hmac_key=b"s")) == 8 + 2 + 16
    packed = encode_entry(KEY, entry_of(*range(500)), dictionary=dictionary_of("o200k_base"))
    assert packed[:8].hex() == "46460203" + "01" + "01" + "f301"


@pytest.mark.parametrize("secret", VERSION_1)
def test_an_entry_of_version_1_is_read_as_ever_and_no_byte_of_it_may_change(secret: bytes | None) -> None:
    value = VERSION_1[secret]
    assert decode_entry(KEY, value, hmac_key=secret) == entry_of(1, 0x01020304, right_safe=True)
    for position in range(len(value)):
        damaged = bytearray(value)
        damaged[position] ^= 1
        with pytest.raises(CorruptEntry):
            decode_entry(KEY, bytes(damaged), hmac_key=secret)


def test_ids_beyond_every_vocabulary_are_written_as_version_1() -> None:
    value = encode_entry(KEY, entry_of(1, 2**32 - 1), dictionary=dictionary_of("o200k_base"))
    assert value[:4] == b"FF\1\1"
    assert decode_entry(KEY, value) == entry_of(1, 2**32 - 1)


@pytest.mark.parametrize("ids", [range(3), range(0, 200_000, 400)])
def test_decoded_ids_are_read_only(ids: range) -> None:
    decoded = decode_entry(KEY, encode_entry(KEY, entry_of(*ids)))
    with pytest.raises(ValueError, match="read-only"):
        decoded.ids[0] = 9


@given(many=st.lists(IDS, max_size=5))
def test_entries_are_joined_in_their_order(many: list[list[int]]) -> None:
    joined = joined_entries([entry_of(*ids) for ids in many])
    assert joined.tolist() == [each for ids in many for each in ids]
    assert joined.dtype == np.uint32
    assert not joined.flags.writeable


def test_no_entry_is_joined_as_nothing() -> None:
    with pytest.raises(TypeError):
        joined_entries([entry_of(1), None])


def test_an_entry_does_not_follow_the_array_it_was_made_of() -> None:
    ids = np.array([1, 2], dtype=np.uint32)
    entry = Entry(ids, right_safe=True)
    ids[0] = 9
    assert entry.ids.tolist() == [1, 2]
    assert not entry.ids.flags.writeable


@pytest.mark.parametrize(
    "ids",
    [
        np.zeros(0, dtype=np.uint32),
        np.zeros(MAX_IDS + 1, dtype=np.uint32),
        np.zeros((2, 2), dtype=np.uint32),
        np.zeros(3, dtype=np.int64),
    ],
)
def test_what_cannot_be_an_entry_is_refused(ids: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="an entry needs"):
        Entry(ids, right_safe=True)


@pytest.mark.parametrize("dictionary", ["", "o200k_base"])
def test_the_largest_entry_survives_its_bytes(dictionary: str) -> None:
    for ids in (np.arange(MAX_IDS), np.arange(MAX_IDS) * 7919 % 200_000, np.full(MAX_IDS, 199_999)):
        entry = Entry(ids.astype(np.uint32), right_safe=False)
        assert decode_entry(KEY, encode_entry(KEY, entry, dictionary=dictionary_of(dictionary))) == entry


def sealed(body: bytes) -> bytes:
    """Return a body with the tag that anybody can compute."""
    return body + codec._tag(KEY, body, None, size=8)
