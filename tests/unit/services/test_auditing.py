"""Which prompts are audited."""

from collections import Counter
from random import Random

import pytest

from pipeline.services.auditing import FIRST_PROMPTS, AuditSample


def test_the_first_prompts_of_each_corpus_and_spec_are_audited_and_then_some_by_chance() -> None:
    sample = AuditSample(every=500, draw=Random(7).random)
    pairs = (("a.1", "s/plain"), ("a.1", "t/plain"), ("b.2", "s/plain"))
    for pair in pairs:
        assert [sample.takes(*pair) for _ in range(FIRST_PROMPTS)] == [True] * FIRST_PROMPTS
    taken = Counter(sample.takes(*pairs[0]) for _ in range(100_000))
    assert 150 <= taken[True] <= 250


@pytest.mark.parametrize(("every", "share"), [(0, 0.0), (1, 1.0)])
def test_all_prompts_can_be_audited_or_none(every: int, share: float) -> None:
    sample = AuditSample(every=every)
    assert sum(sample.takes("a.1", "s/plain") for _ in range(1_000)) == 1_000 * share


@pytest.mark.parametrize(("drawn", "is_taken"), [(0.0, True), (0.0999, True), (0.1, False), (0.9999, False)])
def test_one_in_so_many_is_exactly_that(drawn: float, *, is_taken: bool) -> None:
    assert AuditSample(every=10, first=0, draw=lambda: drawn).takes("a.1", "s/plain") is is_taken
