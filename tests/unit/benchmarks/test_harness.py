"""Sides take turns, and their figures are told by the middle."""

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import Measured, MemoryWatch, in_turn, percentile, rate


def test_sides_take_turns_and_the_order_turns_around() -> None:
    done: list[str] = []

    def side(name: str) -> float:
        done.append(name)
        return float(len(done))

    found = in_turn({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3)
    assert done == ["a", "b", "b", "a", "a", "b"]
    assert {name: list(side.values) for name, side in found.items()} == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_a_rate_is_size_over_time() -> None:
    assert rate(10, Measured((2, 5), "s"), "MB/s") == Measured((5, 2), "MB/s")


@given(st.lists(st.floats(0, 1000), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_and_covers_its_share(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= round(share * len(values))


def test_a_process_that_has_ended_costs_a_watch_nothing() -> None:
    with MemoryWatch(lambda: {"gone": [2**22 + 1]}, interval_s=60) as watch:
        pass
    assert watch.peaks_mb == {"gone": 0.0}
