from dataclasses import replace

import numpy as np
import orjson
import pytest

from pipeline.context import ContextPassage, Source, ValidationReport, assemble, prompt_ids
from pipeline.framing import prompt_segments, reference_ids, segments_as_data
from pipeline.jobs.run_reports import RunReport
from pipeline.services.inspection import Coverage
from pipeline.services.presenting import (
    coverage_object,
    page_object,
    retrieved_object,
    run_object,
    stats_object,
    time_text,
    to_json,
    validation_object,
)
from pipeline.services.retrieving import Retrieved
from pipeline.token_cache import CacheServer
from pipeline.tokenizers import encode_passage, load_spec

QUESTION = "Why?"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_225_600_125, "2026-01-01T00:00:00.125Z"),
        (1_767_225_600_999, "2026-01-01T00:00:00.999Z"),
        (None, None),
    ],
)
def test_times_are_rfc_3339_in_utc(milliseconds: int | None, text: str | None) -> None:
    assert time_text(milliseconds) == text


def test_a_full_page_names_where_the_next_begins() -> None:
    items = [{"id": "a"}, {"id": "b"}]
    assert page_object("things", items, limit=2, key="id") == {"things": items, "next": "b"}
    assert page_object("things", items, limit=3, key="id")["next"] is None
    assert page_object("things", [], limit=1, key="id") == {"things": [], "next": None}


def test_a_run_has_the_fields_of_the_contract() -> None:
    totals = {"documents": 1, "pending": 0, "done": 1, "unchanged": 0, "superseded": 0, "dead": 0, "cancelled": 0}
    report = RunReport(
        id="r",
        kind="ingest",
        corpus="c",
        spec=None,
        state="succeeded",
        sealed=True,
        error=None,
        totals=totals,
        tokens=3,
        created_at=0,
        started_at=1000,
        finished_at=2000,
        differences=0,
        options={},
        nominal_at=None,
        eta_s=None,
    )
    shown = run_object(report)
    contract = {"id", "kind", "corpus", "spec", "state", "totals", "tokens", "started_at", "finished_at", "eta_s"}
    assert contract <= set(shown)
    assert shown["totals"] == totals
    assert shown["finished_at"] == "1970-01-01T00:00:02.000Z"


def retrieved(
    *texts: str, max_context_tokens: int = 1000, spec_id: str = "o200k_base/plain", include_prompt: bool = False
) -> Retrieved:
    spec = load_spec(spec_id)
    passages = []
    for ordinal, text in enumerate(texts):
        encoded = encode_passage(spec, text)
        passages.append(
            ContextPassage(
                passage_key=bytes([ordinal]) * 16,
                ids=encoded.ids,
                right_safe=encoded.right_safe,
                document_id=f"d{ordinal}",
                ordinal=ordinal,
                generation=1,
                score=float(np.float32(0.5)),
                source="l2",
            )
        )
    context = assemble(spec, passages, max_context_tokens=max_context_tokens)
    prompt = prompt_ids(spec, context, QUESTION) if include_prompt else None
    return Retrieved(spec=spec, context=context, question=QUESTION, prompt_token_ids=prompt, latency_ms=1.5)


def test_an_answer_counts_what_it_holds() -> None:
    answer = retrieved("one passage", "another")
    shown = orjson.loads(to_json(retrieved_object(answer, include_text=True)))
    assert shown["token_ids"] == answer.context.token_ids.tolist()
    assert shown["metadata"]["token_count"] == len(shown["token_ids"])
    assert shown["metadata"]["doc_count"] == len(shown["passages"]) == 2
    assert shown["metadata"]["timings_ms"].keys() == {"embed", "search", "cache", "tokenize", "assemble"}
    tokenizer = answer.spec.tokenizer
    assert tokenizer.encode(shown["prompt_text"]).tolist() == shown["token_ids"]
    assert "prompt_text" not in retrieved_object(answer)


@pytest.mark.parametrize("texts", [("one passage", "another"), ()])
@pytest.mark.parametrize("spec_id", ["o200k_base/plain", "o200k_harmony/harmony"])
def test_a_prompt_is_shown_whole_where_it_was_asked_for(spec_id: str, texts: tuple[str, ...]) -> None:
    answer = retrieved(*texts, spec_id=spec_id, include_prompt=True)
    spec = answer.spec
    shown = orjson.loads(to_json(retrieved_object(answer, include_text=True)))
    segments = prompt_segments(spec.frame, texts, QUESTION)
    assert shown["prompt_token_ids"] == reference_ids(segments, spec.tokenizer).tolist()
    assert shown["prompt_token_ids"][: shown["context_tokens"]] == shown["token_ids"]
    assert shown["context_tokens"] + shown["query_tokens"] == len(shown["prompt_token_ids"])
    assert shown["metadata"]["cache_hit"] is bool(texts)
    if spec.frame.has_controls:
        assert shown["prompt_segments"] == segments_as_data(segments)
    else:
        assert spec.tokenizer.encode(shown["prompt_text"]).tolist() == shown["prompt_token_ids"]


@pytest.mark.parametrize(
    ("sources", "is_hit"),
    [(("l1", "l2"), True), (("l1", "miss"), False), (("l2", "off"), False), (("off",), False), ((), False)],
)
def test_an_answer_is_a_hit_if_every_passage_and_at_least_one_came_from_the_cache(
    sources: tuple[Source, ...], *, is_hit: bool
) -> None:
    answer = retrieved(*map(str, range(len(sources))))
    passages = [
        replace(passage, source=source) for passage, source in zip(answer.context.passages, sources, strict=True)
    ]
    assert replace(answer, context=replace(answer.context, passages=tuple(passages))).cache_hit is is_hit


PASSAGE_FIELDS = {"document_id", "ordinal", "generation", "score", "token_count", "source"}


def test_a_cut_passage_says_so_and_counts_what_is_left_of_it() -> None:
    whole = retrieved("one passage", "another one of some more words")
    room = len(whole.context.token_ids) - 2
    answer = retrieved("one passage", "another one of some more words", max_context_tokens=room)
    shown = orjson.loads(to_json(retrieved_object(answer, include_text=True)))
    first, last = shown["passages"]
    assert first.keys() == PASSAGE_FIELDS
    assert last.keys() == PASSAGE_FIELDS | {"cut"}
    assert (last["cut"], shown["metadata"]["truncated"]) == (True, True)
    assert last["token_count"] == whole.context.passages[1].token_count - 2
    assert shown["prompt_text"].endswith("Document 2\nanother one of some\n\n")
    assert answer.spec.tokenizer.encode(shown["prompt_text"]).tolist() == shown["token_ids"]


def test_a_validation_says_how_many_cuts_it_tried() -> None:
    report = ValidationReport(contexts=9, passages=20, unsafe_passages=1, cuts=4, refused_texts=0)
    assert validation_object(report) == {
        "contexts": 9,
        "passages": 20,
        "unsafe_passages": 1,
        "cuts": 4,
        "refused_texts": 0,
    }


def test_an_answer_without_room_is_empty() -> None:
    shown = orjson.loads(to_json(retrieved_object(retrieved("text", max_context_tokens=0), include_text=True)))
    assert (shown["token_ids"], shown["passages"], shown["prompt_text"]) == ([], [], "")
    assert shown["metadata"]["truncated"] is True


def test_statistics_of_a_silent_cache_say_so() -> None:
    coverage = [
        Coverage("c", "s", passages=4, covered=3, tokens=10),
        Coverage("c", "t", passages=0, covered=0, tokens=0),
    ]
    shown = stats_object(lookups=None, server=None, coverage=coverage, queues=[])
    assert shown["cache_size_mb"] is None
    assert shown["total_tokens_cached"] == 10
    assert shown["coverage"] == coverage_object(coverage) == {"c": {"s": 0.75, "t": 1.0}}
    server = CacheServer(
        1, used_bytes=3 * 1024 * 1024, max_bytes=0, evicted_keys=0, eviction_policy="", append_only=True
    )
    assert stats_object(lookups=None, server=server, coverage=[], queues=[])["cache_size_mb"] == 3.0
