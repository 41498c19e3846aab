"""Which state a document takes when a change of it is accepted."""

import pytest

from pipeline.documents.states import DOCUMENT_TRANSITIONS, DocumentState, check_transition, state_after_accept
from pipeline.errors import Conflict

_S = DocumentState


@pytest.mark.parametrize("current", [_S.PENDING, _S.DEAD, _S.DELETED])
def test_a_text_makes_a_document_pending_while_nothing_of_it_is_served(current: DocumentState) -> None:
    assert state_after_accept(current, served_generation=0, deletes=False) is _S.PENDING


@pytest.mark.parametrize("current", [_S.SERVED, _S.STALE, _S.DEAD, _S.DELETED])
def test_a_text_makes_a_document_stale_while_an_older_generation_is_served(current: DocumentState) -> None:
    assert state_after_accept(current, served_generation=3, deletes=False) is _S.STALE


@pytest.mark.parametrize("current", DocumentState)
@pytest.mark.parametrize("served", [0, 3])
def test_every_document_can_be_deleted(current: DocumentState, served: int) -> None:
    assert state_after_accept(current, served_generation=served, deletes=True) is _S.DELETED


def test_an_illegal_move_is_a_conflict_that_names_both_states() -> None:
    for current, targets in DOCUMENT_TRANSITIONS.items():
        for target in set(DocumentState) - targets:
            with pytest.raises(Conflict, match=f"{current}.*{target}"):
                check_transition(current, target)
