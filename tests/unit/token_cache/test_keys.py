"""Keys name a spec and a passage, and can be told from everything else."""

import pytest

from pipeline.token_cache import EPOCH_KEY, EntryName, entry_key, parse_entry_key
from tests.support.entries import FINGERPRINT, passage_key_of


def test_a_key_names_spec_and_passage_and_is_read_back() -> None:
    key = entry_key(FINGERPRINT, bytes(range(16)))
    assert key == f"ff:{FINGERPRINT}:000102030405060708090a0b0c0d0e0f"
    assert parse_entry_key(key.encode()) == EntryName(FINGERPRINT, bytes(range(16)))


@pytest.mark.parametrize("key", [EPOCH_KEY, "ff:a:b", f"x:{FINGERPRINT}:{FINGERPRINT}", f"ff:{FINGERPRINT}:{'A' * 32}"])
def test_other_keys_are_not_entries(key: str) -> None:
    assert parse_entry_key(key.encode()) is None


def test_bytes_that_are_no_text_are_not_entries() -> None:
    assert parse_entry_key(b"ff:\xff\xfe:" + b"0" * 32) is None


def test_a_passage_key_as_text_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        entry_key(FINGERPRINT, passage_key_of("a").hex().encode())
