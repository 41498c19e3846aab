import numpy as np

from pipeline.framing import RaggedIds


def of(*texts: list[int]) -> RaggedIds:
    return RaggedIds.of([np.array(ids, dtype=np.uint32) for ids in texts])


def listed(ragged: RaggedIds) -> list[list[int]]:
    return [ids.tolist() for ids in ragged]


def test_texts_come_back_as_they_were_given() -> None:
    ragged = of([1, 2], [], [3])
    assert listed(ragged) == [[1, 2], [], [3]]
    assert (len(ragged), ragged[0].tolist(), ragged.sizes.tolist()) == (3, [1, 2], [2, 0, 1])
    assert listed(of()) == []
    assert not ragged.ids.flags.writeable


def test_parts_share_memory_and_can_be_trimmed_to_what_they_reach_over() -> None:
    part = of([1], [2, 3], [4], [5]).part(slice(1, 3))
    assert listed(part) == [[2, 3], [4]]
    assert part.trimmed().ids.tolist() == [2, 3, 4]
    assert listed(part.trimmed()) == listed(part)
    assert listed(of().trimmed()) == []


def test_several_are_put_together_in_order() -> None:
    gaps = RaggedIds(np.arange(9, dtype=np.uint32), np.array([1, 6]), np.array([3, 7]))
    assert listed(RaggedIds.concatenated([of([8], [9, 9]), gaps, of([])])) == [[8], [9, 9], [1, 2], [6], []]
    assert listed(RaggedIds.concatenated([])) == []
