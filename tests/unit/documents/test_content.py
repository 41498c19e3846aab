"""The content hash decides whether anything changed; the bucket decides whose work it is."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.content import bucket_of, deletion, hash_fields, text_change

_FIELDS = st.lists(st.binary(max_size=6), max_size=4)


@given(left=_FIELDS, right=_FIELDS)
def test_two_lists_of_fields_have_one_hash_only_if_they_are_equal(left: list[bytes], right: list[bytes]) -> None:
    assert (hash_fields(*left) == hash_fields(*right)) == (left == right)


def test_moving_bytes_from_one_field_to_the_next_changes_the_hash() -> None:
    assert hash_fields(b"ab", b"c") != hash_fields(b"a", b"bc") != hash_fields(b"abc")
    assert hash_fields(b"", b"a") != hash_fields(b"a", b"") != hash_fields(b"a")


def test_the_order_of_metadata_means_nothing_and_everything_else_something() -> None:
    base = text_change("d", text="t", metadata={"a": 1, "b": 2}, splitter="s")
    assert base == text_change("d", text="t", metadata={"b": 2, "a": 1}, splitter="s")
    others = [
        text_change("d", text="T", metadata={"a": 1, "b": 2}, splitter="s"),
        text_change("d", text="t", metadata={"a": 1, "b": 3}, splitter="s"),
        text_change("d", text="t", metadata={"a": 1, "b": 2}, splitter="other"),
    ]
    assert len({change.content_hash for change in (base, *others)}) == 4


def test_the_id_is_no_part_of_the_content() -> None:
    one, two = (text_change(name, text="t", metadata={}, splitter="s") for name in ("one", "two"))
    assert one.content_hash == two.content_hash


def test_text_is_measured_in_bytes_and_a_deletion_has_none() -> None:
    assert text_change("d", text="äö", metadata={}, splitter="s").text_bytes == 4
    assert (deletion("d").text_bytes, deletion("d").content_hash) == (0, None)


@given(document_id=st.text(), buckets=st.integers(1, 64))
def test_a_bucket_is_one_of_the_corpus_and_always_the_same(document_id: str, buckets: int) -> None:
    assert bucket_of(document_id, buckets=buckets) == bucket_of(document_id, buckets=buckets) in range(buckets)


def test_documents_spread_over_all_buckets() -> None:
    counted = Counter(bucket_of(f"doc-{number}", buckets=16) for number in range(3200))
    assert len(counted) == 16
    assert max(counted.values()) < 2 * min(counted.values())
