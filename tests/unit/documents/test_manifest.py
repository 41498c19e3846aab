"""The packed form of what is served survives packing, in order."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.manifest import PassageSpan, pack_points, pack_spans, unpack_points, unpack_spans

_OFFSETS = st.integers(0, 2**32 - 1)
_SPANS = st.lists(st.builds(PassageSpan, st.binary(min_size=16, max_size=16), _OFFSETS, _OFFSETS), max_size=20)
_POINTS = st.lists(st.uuids().map(str), max_size=20)


@given(spans=_SPANS)
def test_spans_come_back_as_they_were(spans: list[PassageSpan]) -> None:
    packed = pack_spans(spans)
    assert unpack_spans(packed) == spans
    assert len(packed) == 24 * len(spans)


@given(points=_POINTS)
def test_point_ids_come_back_as_they_were(points: list[str]) -> None:
    packed = pack_points(points)
    assert unpack_points(packed) == points
    assert len(packed) == 16 * len(points)


def test_the_packed_form_does_not_depend_on_the_machine() -> None:
    span = PassageSpan(bytes(range(16)), 1, 258)
    assert pack_spans([span]).hex() == "000102030405060708090a0b0c0d0e0f" + "01000000" + "02010000"
    assert pack_points([str(UUID(int=1))]).hex() == "0" * 31 + "1"
