"""The compact set of ids, against Python's."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.seen_ids import SeenIds

batches_of_ids = st.lists(st.lists(st.text(max_size=3), max_size=8))


@given(batches=batches_of_ids, asked=st.lists(st.text(max_size=3)))
def test_it_holds_what_a_set_holds(batches: list[list[str]], asked: list[str]) -> None:
    seen, oracle = SeenIds(), set[str]()
    for batch in batches:
        seen.add(batch)
        oracle.update(batch)
        assert len(seen) == len(oracle)
    assert seen.known(asked) == [document_id in oracle for document_id in asked]


def test_many_small_batches_stay_few_arrays() -> None:
    seen = SeenIds()
    for batch in range(300):
        seen.add([f"{batch}/{number}" for number in range(10)])
    assert len(seen) == 3000
    assert len(seen._arrays) < 12
