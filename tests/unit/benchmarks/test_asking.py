"""Questions as people ask them, and the cache that one writes first."""

from collections import Counter
from itertools import islice

from benchmarks.asking import questions_from, zipf_stream
from benchmarks.corpus import Document
from benchmarks.rivals.answer_cache import AnswerCache

ITEMS = [f"q{number}" for number in range(100)]


def test_a_stream_is_the_same_for_the_same_seed() -> None:
    assert list(islice(zipf_stream(ITEMS, seed=1), 50)) == list(islice(zipf_stream(ITEMS, seed=1), 50))
    assert list(islice(zipf_stream(ITEMS, seed=1), 50)) != list(islice(zipf_stream(ITEMS, seed=2), 50))


def test_places_are_asked_for_by_zipf() -> None:
    counts = Counter(islice(zipf_stream(ITEMS), 50_000))
    assert 1.8 < counts["q0"] / counts["q1"] < 2.2
    assert 8 < counts["q0"] / counts["q9"] < 12.5
    assert set(counts) == set(ITEMS)


def test_questions_are_words_of_documents() -> None:
    documents = [Document("a", "Alpha beta gamma delta epsilon zeta eta theta iota"), Document("b", "1 2 3")]
    asked = questions_from(documents, 20)
    assert asked == questions_from(documents, 20)
    assert all(question and (question in documents[0].text or question == "b") for question in asked)


def test_the_other_cache_misses_once_then_hits_until_its_time_is_over() -> None:
    cache = AnswerCache(ttl_s=300)
    for now_s in (0.0, 299.9, 300.0, 301.0):
        cache.ask(["a", "b"], [1, 2], now_s=now_s)
    assert (cache.hits, cache.misses, cache.stale) == (2, 2, 0)
    assert cache.hit_percent == 50


def test_the_other_cache_knows_neither_order_nor_content() -> None:
    cache = AnswerCache()
    cache.ask(["a", "b"], [1, 2], now_s=0)
    cache.ask(["b", "a"], [2, 1], now_s=1)
    cache.ask(["a", "b"], [1, 3], now_s=2)
    assert (cache.hits, cache.stale) == (2, 2)
