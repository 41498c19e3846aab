"""Specs built beside the active one, activated when nothing is missing, rolled back and dropped."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from pipeline.database import Database
from pipeline.documents.corpora import filled_specs, find_corpus
from pipeline.documents.spec_states import SPEC_TRANSITIONS, CorpusSpecState
from pipeline.documents.tables import LedgerRow
from pipeline.errors import Conflict, InvalidInput, NotFound
from pipeline.framing import packaged_frame
from pipeline.jobs.claims import JOBS
from pipeline.jobs.range_runs import settle_ranges
from pipeline.services.range_runs import start_range_run
from pipeline.services.spec_lifecycle import activate, build, drop, roll_back
from pipeline.services.specs import SpecReport, ensure_spec, list_specs
from pipeline.tokenizers import build_spec, load_spec
from tests.support.write_path import (
    CORPUS,
    DOCUMENTS,
    InMemoryWorker,
    Waiter,
    at_once,
    change_rows,
    ingestion,
    report,
    source,
    sources,
)

OLD, NEW, THIRD = "o200k_base/plain", "cl100k_base/plain", "o200k_base/own"


@pytest.fixture
def worker(database: Database) -> InMemoryWorker:
    """A corpus that serves five documents under the old spec."""
    made = InMemoryWorker(database)
    ingestion(database).put(CORPUS, sources(5))
    made.run_all()
    own = replace(packaged_frame("plain"), name="own", header="Source {n}\n")
    with database.write() as connection:
        ensure_spec(connection, build_spec(load_spec(OLD).tokenizer, frame=own))
    return made


def specs(database: Database, corpus: str = CORPUS) -> dict[str, str]:
    with database.read() as connection:
        found = find_corpus(connection, corpus)
        assert found is not None
        return {spec.spec_id: spec.status for spec in filled_specs(connection, found.pk)}


def listed(database: Database, spec_id: str) -> SpecReport:
    with database.read() as connection:
        (found,) = list_specs(connection, only=spec_id)
    return found


def built(worker: InMemoryWorker, spec_id: str = NEW) -> str:
    run_id = build(worker.database, spec_id, CORPUS)
    worker.run_all()
    settle_ranges(worker.database)
    return run_id


def ledger_rows(database: Database, spec_id: str) -> int:
    with database.read() as connection:
        count = select(func.count()).select_from(LedgerRow).where(LedgerRow.spec_id == spec_id)
        return connection.execute(count).scalar_one()


def entries(worker: InMemoryWorker, spec_id: str) -> int:
    fingerprint = load_spec(spec_id).fingerprint
    return sum(fingerprint in name for name in worker.store.names())


def test_a_spec_is_built_beside_the_active_one_and_activated_when_nothing_is_missing(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = build(database, NEW, CORPUS)
    assert specs(database) == {OLD: "active", NEW: "building"}
    assert (listed(database, NEW).status, listed(database, NEW).coverage) == ("building", {CORPUS: 0.0})
    with pytest.raises(
        Conflict, match=r"5 documents of corpus 'docs' have no entries under cl100k_base/plain yet \('d0"
    ):
        activate(database, NEW)
    assert specs(database) == {OLD: "active", NEW: "building"}
    worker.run_all()
    settle_ranges(database)
    assert report(database, run_id).totals["done"] == 5
    assert listed(database, NEW).status == "ready"
    (activation,) = activate(database, NEW)
    assert (activation.corpus, activation.spec_id, activation.missing.documents) == (CORPUS, NEW, 0)
    assert specs(database) == {NEW: "active", OLD: "retiring"}
    assert (listed(database, NEW).status, listed(database, OLD).status) == ("active", "retiring")
    assert entries(worker, NEW) == entries(worker, OLD) == 5 - 4  # five documents of one text


def test_events_fill_every_spec_that_is_not_dropped(worker: InMemoryWorker) -> None:
    database = worker.database
    built(worker)
    ingestion(database).put(CORPUS, [source("new", "while it is built")])
    worker.run_all()
    activate(database, NEW)
    ingestion(database).put(CORPUS, [source("newer", "while the old one retires")])
    worker.run_all()
    assert ledger_rows(database, OLD) == ledger_rows(database, NEW) == 7
    drop(database, OLD, corpora=[CORPUS])
    ingestion(database).put(CORPUS, [source("newest", "when it is dropped")])
    worker.run_all()
    assert (ledger_rows(database, OLD), ledger_rows(database, NEW)) == (0, 8)


def test_a_job_that_was_claimed_before_a_spec_was_added_fills_it_before_it_settles(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set's version, read under a lock when a publication settles, is what nobody gets past."""
    database = worker.database
    ingestion(database).put(CORPUS, [source("late", "published while the spec is added")])
    upsert = worker.index.upsert

    def build_meanwhile(*arguments: Any) -> None:
        upsert(*arguments)
        monkeypatch.undo()
        build(database, NEW, CORPUS)

    monkeypatch.setattr(worker.index, "upsert", build_meanwhile)
    worker.run_all()
    settle_ranges(database)
    assert ledger_rows(database, NEW) == 6
    activate(database, NEW)


def test_a_job_that_was_claimed_before_a_spec_was_dropped_does_not_bring_it_back(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = worker.database
    built(worker)
    ingestion(database).put(CORPUS, [source("late", "published while the spec is dropped")])
    upsert = worker.index.upsert

    def drop_meanwhile(*arguments: Any) -> None:
        upsert(*arguments)
        monkeypatch.undo()
        drop(database, NEW)

    monkeypatch.setattr(worker.index, "upsert", drop_meanwhile)
    worker.run_all()
    assert ledger_rows(database, NEW) == 0
    assert specs(database) == {OLD: "active"}


def test_activation_waits_for_who_settles_and_sees_what_they_wrote(worker: InMemoryWorker) -> None:
    """A publication that settles under the old set would leave its document without entries; it cannot."""
    database = worker.database
    built(worker)
    with database.write() as connection:
        found = find_corpus(connection, CORPUS)
        assert found is not None
        connection.execute(
            DOCUMENTS.update().where(DOCUMENTS.c.id == "d0").values(generation=2, served_generation=2,
                                                                    published_generation=2)
        )  # fmt: skip
        connection.exec_driver_sql("UPDATE corpora SET spec_set_version = spec_set_version")  # as `settle` holds it
        waiter = Waiter(database, lambda: activate(database, NEW))
    assert isinstance(waiter.result(), Conflict)


def test_dead_documents_that_serve_an_older_generation_are_shown_and_accepted_by_force(worker: InMemoryWorker) -> None:
    database = worker.database
    dead = DOCUMENTS.c.id == "d3"
    change_rows(database, DOCUMENTS, dead, state="dead", generation=2, last_error="it cannot be tokenized")
    built(worker)
    with pytest.raises(Conflict, match=r"1 documents .* \('d3'\); 1 of them are dead and serve an older generation"):
        activate(database, NEW)
    (activation,) = activate(database, NEW, force=True)
    assert (activation.missing.documents, activation.missing.dead, activation.missing.examples) == (1, 1, ("d3",))
    assert specs(database)[NEW] == "active"


def test_rolling_back_is_activating_the_one_before_and_needs_nothing(worker: InMemoryWorker) -> None:
    database = worker.database
    built(worker)
    activate(database, NEW)
    (back,) = roll_back(database, NEW)
    assert (back.spec_id, specs(database)) == (OLD, {OLD: "active", NEW: "retiring"})
    (forth,) = roll_back(database, NEW)  # named as the one to go back to
    assert (forth.spec_id, specs(database)) == (NEW, {NEW: "active", OLD: "retiring"})
    drop(database, OLD)
    with pytest.raises(Conflict, match="has no retiring spec to roll back to"):
        roll_back(database, NEW)


def test_of_several_retiring_specs_the_last_one_is_gone_back_to(worker: InMemoryWorker) -> None:
    database = worker.database
    for spec_id in (NEW, THIRD):
        with_spec(worker, spec_id)
    assert specs(database) == {THIRD: "active", NEW: "retiring", OLD: "retiring"}
    (back,) = roll_back(database, THIRD)
    assert back.spec_id == NEW


def with_spec(worker: InMemoryWorker, spec_id: str) -> None:
    built(worker, spec_id)
    activate(worker.database, spec_id)


def test_the_active_spec_cannot_be_dropped_and_a_dropped_one_is_built_anew(worker: InMemoryWorker) -> None:
    database = worker.database
    built(worker)
    with pytest.raises(Conflict, match="is active in corpus 'docs': it cannot become dropped"):
        drop(database, OLD)
    assert drop(database, NEW) == [CORPUS]
    assert drop(database, NEW) == [CORPUS]
    assert (listed(database, NEW).status, ledger_rows(database, NEW)) == ("dropped", 0)
    with pytest.raises(Conflict, match="is not filled for spec cl100k_base/plain"):
        activate(database, NEW, corpora=[CORPUS])
    with pytest.raises(Conflict, match="is building or active or retiring in no corpus"):
        activate(database, NEW)
    built(worker)
    activate(database, NEW)
    assert listed(database, NEW).status == "active"


def test_a_spec_that_no_corpus_uses_is_dropped_and_comes_back_when_it_is_built(worker: InMemoryWorker) -> None:
    database = worker.database
    built(worker, THIRD)
    drop(database, THIRD)
    assert listed(database, THIRD).status == "dropped"
    build(database, THIRD, CORPUS)
    assert listed(database, THIRD).status == "building"


def test_building_twice_is_one_backfill_and_a_backfill_for_a_new_spec_builds_it(worker: InMemoryWorker) -> None:
    database = worker.database
    first, second = at_once(lambda: build(database, NEW, CORPUS), lambda: build(database, NEW, CORPUS))
    assert first == second
    assert start_range_run(database, CORPUS, kind="backfill", spec=NEW) == first
    drop(database, NEW)
    start_range_run(database, CORPUS, kind="backfill", spec=NEW)
    assert specs(database)[NEW] == "building"


def test_what_does_not_exist_is_said_and_leaves_nothing(worker: InMemoryWorker) -> None:
    database = worker.database
    with pytest.raises(NotFound, match="'nowhere'"):
        build(database, NEW, "nowhere")
    with pytest.raises(InvalidInput, match="there is no spec 'o300k_base"):
        build(database, "o300k_base/plain", CORPUS)
    with pytest.raises(NotFound, match="no spec 'o300k_base/plain'"):
        activate(database, "o300k_base/plain")
    with pytest.raises(NotFound, match="no spec 'mine/plain'"):
        start_range_run(database, CORPUS, kind="backfill", spec="mine/plain")
    with pytest.raises(NotFound, match="is not filled for spec"):
        start_range_run(database, CORPUS, kind="retokenize", spec=NEW)
    assert specs(database) == {OLD: "active"}


def test_activating_in_several_corpora_is_all_or_nothing(worker: InMemoryWorker) -> None:
    database = worker.database
    ingestion(database).put("other", sources(2))
    worker.run_all()
    built(worker)
    build(database, NEW, "other")
    with pytest.raises(Conflict, match="'other'"):
        activate(database, NEW)
    assert specs(database)[NEW] == "building"
    worker.run_all()
    assert [each.corpus for each in activate(database, NEW)] == [CORPUS, "other"]


def test_of_two_that_activate_at_once_one_spec_is_active_in_the_end(worker: InMemoryWorker) -> None:
    database = worker.database
    built(worker)
    built(worker, THIRD)
    results = at_once(lambda: activate(database, NEW), lambda: activate(database, THIRD))
    assert not [each for each in results if isinstance(each, Exception)]
    assert sorted(specs(database).values()) == ["active", "retiring", "retiring"]


def test_a_range_job_whose_spec_is_dropped_ends_its_run_in_failure(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = build(database, NEW, CORPUS)
    drop(database, NEW)
    for _attempt in range(6):
        with database.read() as connection:
            pks = list(connection.exec_driver_sql("SELECT pk FROM jobs WHERE state = 'pending'").scalars())
        for pk in pks:
            change_rows(database, JOBS, JOBS.c.pk == pk, available_at=0)
            worker.run(pk)
    settle_ranges(database)
    ended = report(database, run_id)
    assert ended.state == "failed"
    assert ended.error is not None
    assert "is not filled for spec cl100k_base/plain" in ended.error


def test_every_state_has_its_line_in_the_transition_table() -> None:
    assert set(SPEC_TRANSITIONS) == set(CorpusSpecState)
    reached = {target for targets in SPEC_TRANSITIONS.values() for target in targets}
    assert reached == set(CorpusSpecState)
