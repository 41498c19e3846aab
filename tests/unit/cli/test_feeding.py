"""How a stream of documents is cut into transactions."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.feeding import choose_queue, in_batches, keep_last
from pipeline.documents.readers import SourceDocument


def documents(count: int, *, text: str = "x") -> list[SourceDocument]:
    return [SourceDocument(str(number), text) for number in range(count)]


def test_64_documents_are_interactive_and_65_are_bulk() -> None:
    assert choose_queue(documents(64))[0] == "interactive"
    assert choose_queue(documents(65))[0] == "bulk"


def test_few_but_huge_documents_are_bulk_before_all_of_them_are_held() -> None:
    read = []

    def source() -> Iterator[SourceDocument]:
        for document in documents(10, text="x" * 8 * 1024 * 1024):
            read.append(document.id)
            yield document

    assert choose_queue(source())[0] == "bulk"
    assert len(read) == 5


def test_choosing_a_queue_loses_no_document() -> None:
    for count in (0, 1, 64, 65, 200):
        given_documents = documents(count)
        assert list(choose_queue(given_documents)[1]) == given_documents


@given(sizes=st.lists(st.integers(0, 30)), max_documents=st.integers(1, 5), max_bytes=st.integers(1, 40))
def test_batches_hold_everything_in_order_within_both_limits(
    sizes: list[int], max_documents: int, max_bytes: int
) -> None:
    given_documents = [SourceDocument(str(number), "é" * size) for number, size in enumerate(sizes)]
    batches = list(in_batches(given_documents, max_documents=max_documents, max_bytes=max_bytes))
    assert [document for batch in batches for document in batch] == given_documents
    for batch in batches:
        assert 1 <= len(batch) <= max_documents
        assert len(batch) == 1 or sum(len(document.text.encode()) for document in batch) <= max_bytes


def test_the_last_document_of_an_id_is_kept() -> None:
    a, b, c = SourceDocument("1", "old"), SourceDocument("2", "other"), SourceDocument("1", "new")
    assert sorted(document.text for document in keep_last([a, b, c])) == ["new", "other"]
