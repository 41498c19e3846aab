"""States are data: one table, a sentence each, terminal is final."""

import ast
import inspect
from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Any

import pytest

from pipeline.documents import states as document_states
from pipeline.documents.states import DOCUMENT_TRANSITIONS, DocumentState
from pipeline.jobs import states as job_states
from pipeline.jobs.states import (
    JOB_TRANSITIONS,
    RUN_ENDED,
    RUN_TRANSITIONS,
    JobState,
    Outcome,
    RunState,
    sources,
)
from pipeline.jobs.tables import JobRow, RunItemRow, RunRow

TABLES: Mapping[type[StrEnum], Mapping[Any, frozenset[Any]]] = {
    JobState: JOB_TRANSITIONS,
    RunState: RUN_TRANSITIONS,
    DocumentState: DOCUMENT_TRANSITIONS,
}
MODULES: Mapping[type[StrEnum], Any] = {JobState: job_states, RunState: job_states, DocumentState: document_states}
STATES = pytest.mark.parametrize("states", TABLES, ids=lambda states: states.__name__)


def sentences(states: type[StrEnum]) -> dict[str, str]:
    """Return the sentence written under each member of an enum."""
    tree = ast.parse(inspect.getsource(MODULES[states]))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == states.__name__]
    found = {}
    for member, said in pairwise(body):
        match member, said:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(sentence))):
                found[name] = sentence
    return found


@STATES
def test_every_state_has_a_sentence(states: type[StrEnum]) -> None:
    said = sentences(states)
    assert set(said) == set(states.__members__)
    assert all(sentence.endswith(".") for sentence in said.values())


@STATES
def test_every_state_is_in_the_table_and_can_be_reached(states: type[StrEnum]) -> None:
    table = TABLES[states]
    assert set(table) == set(states)
    reached = {target for targets in table.values() for target in targets}
    assert set(states) - reached <= {JobState.PENDING, RunState.PENDING, DocumentState.PENDING}


@STATES
def test_what_calls_itself_terminal_is_final(states: type[StrEnum]) -> None:
    table = TABLES[states]
    terminal = {name for name, sentence in sentences(states).items() if sentence.startswith("Terminal")}
    final = {state.name for state, targets in table.items() if not targets}
    assert final <= terminal
    assert terminal - final <= {"PARTIAL"}, "only a retry of dead items reopens anything"


def test_a_job_ends_once_and_for_ever() -> None:
    ended = {JobState.SUCCEEDED, JobState.PARTIAL, JobState.DEAD, JobState.CANCELLED}
    assert all(not JOB_TRANSITIONS[state] for state in ended)
    assert JOB_TRANSITIONS[JobState.PENDING] == {JobState.RUNNING, JobState.CANCELLED}


def test_sources_are_the_table_read_backwards() -> None:
    for target in JobState:
        assert set(sources(JOB_TRANSITIONS, target)) == {s for s in JobState if target in JOB_TRANSITIONS[s]} - {target}
    assert RunState.PAUSED not in sources(RUN_TRANSITIONS, RunState.SUCCEEDED)
    assert set(sources(RUN_TRANSITIONS, RunState.CANCELLED)).isdisjoint(RUN_ENDED)


@pytest.mark.parametrize(
    ("table", "column", "states"),
    [(JobRow, "state", JobState), (RunRow, "state", RunState), (RunItemRow, "outcome", Outcome)],
    ids=["jobs", "runs", "run items"],
)
def test_the_tables_know_exactly_these_states(
    table: type[JobRow | RunRow | RunItemRow], column: str, states: type[StrEnum]
) -> None:
    checks = [str(c.sqltext) for c in table.metadata.tables[table.__tablename__].constraints if hasattr(c, "sqltext")]
    (known,) = [check for check in checks if check.startswith(f"{column} IN")]
    assert {word.strip(" '()") for word in known.split("IN")[1].split(",")} == {state.value for state in states}
