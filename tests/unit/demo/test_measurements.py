"""The table says what was measured, and compares only tokenizers whose ids are right."""

from demo.client import Answer
from demo.measurements import PARTS, Measurements, Round, rows
from demo.tokenizing import Rival, Timing, time_rival


def answered(milliseconds: float) -> Answer:
    return Answer(
        token_ids=[1, 2, 3],
        prompt_text="abc",
        generations={"a": {1}},
        sources=["l2"],
        latency_ms=10 * milliseconds,
        timings_ms=dict.fromkeys(PARTS, milliseconds),
    )


def measured(*timings: Timing) -> dict[str, tuple[str, str, str]]:
    first = Round([answered(1.0), answered(2.0), answered(9.0)], first_at=1.0, hit_rate=50.0, hits=1, misses=1)
    again = Round([answered(0.5)] * 3, first_at=2.0, hit_rate=100.0, hits=2, misses=0)
    table = rows(
        Measurements(
            coverage=0.5,
            spec="s/plain",
            documents=7,
            passages=1234,
            relevant=2,
            first=first,
            again=again,
            timings=timings,
        )
    )
    return {name: (a, b, remark) for name, a, b, remark in table}


def test_rows_are_medians_and_counts_as_they_were_measured() -> None:
    table = measured()
    assert table["coverage"] == ("50.0%", "", "1,234 passages of 7 documents under s/plain")
    assert table["hit rate"] == ("50.0%", "100.0%", "3 passages looked up and found, 1 missed")
    assert table["relevant document found"][0] == "2 of 3"
    for part in PARTS:
        assert table[part][:2] == ("2.000", "0.500")
    assert table["whole query"][:2] == ("20.000", "5.000")
    assert table["ids from Forefill"][:2] == ("6.000", "1.500")


def test_a_tokenizer_with_other_ids_is_not_compared() -> None:
    table = measured(Timing("right 1", 0.25, equal=3, prompts=3), Timing("wrong 2", 0.01, equal=2, prompts=3))
    assert table["right 1"][:2] == ("0.250", "0.250")
    assert table["wrong 2"] == ("-", "-", "not compared: other ids for 1 of 3 prompts")


def test_a_fast_tokenizer_that_is_not_installed_is_named() -> None:
    assert measured()["gigatoken"] == ("-", "-", "not measured: the package gigatoken is not installed")
    assert "gigatoken" not in measured(Timing("gigatoken 1.0", 0.1, equal=3, prompts=3))


def test_equal_ids_are_counted_prompt_by_prompt_after_warming_up() -> None:
    met: list[str] = []

    def encode(text: str) -> list[int]:
        met.append(text)
        return [len(text)]

    timing = time_rival(Rival("lengths", encode), [("ab", [2]), ("abc", [4])], warm_up=["corpus"])
    assert (timing.equal, timing.prompts) == (1, 2)
    assert timing.median_ms >= 0
    assert met[:3] == ["corpus", "ab", "abc"]
