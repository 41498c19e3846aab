from typing import Any

import pytest
from pydantic import ValidationError

from api.schemas import CorpusBody, DocumentsBody, IdsBody, RetrieveBatchBody, RetrieveBody
from pipeline.documents.splitting import Splitter
from pipeline.documents.validation import DocumentLimits
from pipeline.errors import InvalidInput, TooLarge
from pipeline.services.corpus_settings import NO_SCHEDULE

LIMITS = DocumentLimits(max_text_bytes=100, max_metadata_bytes=100)


def documents(*items: Any) -> Any:
    return DocumentsBody(documents=list(items)).to_documents(max_documents=3, limits=LIMITS)


def question(**fields: Any) -> RetrieveBody:
    return RetrieveBody.model_validate({"corpus": "c", "query": "q", **fields})


def test_a_document_may_hold_fields_nobody_knows() -> None:
    (document,) = documents({"id": "a", "text": "x", "title": "ignored", "metadata": {"k": 1}})
    assert (document.id, document.text, document.metadata) == ("a", "x", {"k": 1})


def test_metadata_may_be_null_or_left_out() -> None:
    assert [
        each.metadata for each in documents({"id": "a", "text": ""}, {"id": "b", "text": "", "metadata": None})
    ] == [
        {},
        {},
    ]


def test_documents_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="'b'") as refused:
        documents({"id": "a", "text": ""}, {"id": "b", "text": 1})
    assert refused.value.item == "b"
    with pytest.raises(InvalidInput, match="'a' comes twice"):
        documents({"id": "a", "text": "1"}, {"id": "a", "text": "2"})
    with pytest.raises(InvalidInput, match=r"documents\[1\]"):
        documents({"id": "a", "text": ""}, None)
    with pytest.raises(TooLarge, match="4 entries"):
        documents(*[{"id": str(number), "text": ""} for number in range(4)])


def test_ids_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="'a' comes twice"):
        IdsBody(ids=["a", "a"]).to_ids(max_documents=3)
    with pytest.raises(InvalidInput, match="NUL"):
        IdsBody(ids=["a\0"]).to_ids(max_documents=3)
    with pytest.raises(TooLarge):
        IdsBody(ids=list("abcd")).to_ids(max_documents=3)


@pytest.mark.parametrize(
    "fields",
    [
        *({"top_k": value} for value in ("2", 2.0, True, None, 0, 101)),
        *({"max_context_tokens": value} for value in ("2", 2.0, True, -1, 10**7 + 1)),
        *({"score_threshold": value} for value in ("1", True, float("nan"), float("inf"))),
        {"include_text": 1},
        {"include_text": "true"},
        {"order": "x"},
        {"order": None},
        {"filter": []},
        *({"filter": {"a": value}} for value in (None, float("nan"), 2**63, "\0", "\ud800")),
        {"filter": {"a": [[]]}},
        {"filter": {"a": {}}},
        {"filter": {"a": [1] * 1001}},
        {"filter": {str(number): 1 for number in range(65)}},
        {"filter": {"\ud800": 1}},
        {"query": 1},
        {"query": "\ud800"},
        {"query": "\0"},
        {"topk": 1},
    ],
    ids=str,
)
def test_a_question_is_strictly_typed(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        question(**fields)


def test_a_question_takes_the_deployments_budget_unless_it_names_one() -> None:
    assert question().to_request(default_context_tokens=7).max_context_tokens == 7
    assert question(max_context_tokens=0).to_request(default_context_tokens=7).max_context_tokens == 0


def test_a_filter_takes_text_numbers_booleans_and_lists_of_them() -> None:
    where = {"a": "x", "b": [1, 2.5, True, -(2**63)], "c": False, "d": []}
    assert question(filter=where, score_threshold=0).to_request(default_context_tokens=1).where == where


def test_a_batch_has_a_question() -> None:
    with pytest.raises(ValidationError):
        RetrieveBatchBody(queries=[])


def test_a_corpus_changes_only_what_is_said() -> None:
    change = CorpusBody.model_validate({}).to_change("c")
    assert (change.spec, change.splitter, change.schedule, change.timezone) == (None, None, None, None)
    assert CorpusBody.model_validate({"schedule": None}).to_change("c").schedule == NO_SCHEDULE


def test_a_splitter_is_said_by_size_or_identity() -> None:
    identity = Splitter(500).identity
    assert CorpusBody.model_validate({"splitter": {"size_chars": 500}}).to_change("c").splitter == identity
    assert CorpusBody.model_validate({"splitter": identity}).to_change("c").splitter == identity


def test_a_corpus_body_names_its_address_or_nothing() -> None:
    assert CorpusBody(name="c").to_change("c") == CorpusBody().to_change("c")
    with pytest.raises(InvalidInput, match="'d'"):
        CorpusBody(name="d").to_change("c")
