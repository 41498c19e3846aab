"""Audits of prompts on real SQL, with cache and index in memory: what is found, what is answered, what follows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, update
from structlog.testing import capture_logs

from pipeline.context import ContextPassage, assembly
from pipeline.database import Database
from pipeline.documents.caching import CachingOff, list_caching_off
from pipeline.documents.passages import passage_key
from pipeline.documents.splitting import Splitter
from pipeline.documents.tables import CorpusSpecRow
from pipeline.errors import Conflict, NotFound, Unavailable
from pipeline.framing import TokenIds, context_segments, prompt_segments, reference_ids
from pipeline.generation import MockClient
from pipeline.jobs.range_runs import RangeOptions
from pipeline.jobs.tables import RunRow
from pipeline.retrieval.embedding import Embedding
from pipeline.retrieval.memory import MemoryVectorSearcher
from pipeline.services import caching_switch
from pipeline.services.auditing import Auditor, AuditSample
from pipeline.services.caching_switch import CachingSwitch
from pipeline.services.configuration import ConfigurationSource, load_configuration
from pipeline.services.corpus_settings import CorpusChange, put_corpus
from pipeline.services.diagnosis import Level
from pipeline.services.diagnosis.corpora import check as check_corpora
from pipeline.services.gauges import refresh_gauges
from pipeline.services.generating import GenerateRequest, GenerationService
from pipeline.services.ingestion import CorpusDefaults
from pipeline.services.range_runs import cancel, start_range_run
from pipeline.services.retrieving import Retrieved, Retriever, RetrieveRequest
from pipeline.services.spec_adding import NewSpec, add_spec
from pipeline.services.spec_enabling import enable, find_caching_off, pending_verification, validate_again
from pipeline.services.specs import list_specs
from pipeline.settings import Settings
from pipeline.token_cache import Entry, L1Cache, MemoryTokenReader, MemoryTokenWriter, TokenCache
from pipeline.tokenizers import TokenSpec, encode_passage, load_spec
from tests.support.fence_world import NamedEmbedder, embedding_of
from tests.support.write_path import CORPUS, InMemoryWorker, at_once, ingestion, source
from tests.unit.tokenizers.hf_files import hf_spec, tokenizer_json

pytestmark = pytest.mark.anyio

PLAIN = load_spec("o200k_base/plain")
TEXTS = {"a": "Zebras have stripes.", "b": "Lions <|im_end|> roar.", "c": "Ants are many."}
QUESTION = "Which have stripes?"


class Questions(NamedEmbedder):
    """Embeds questions as passages are."""

    async def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        return [embedding_of(text) for text in texts]


class Index(MemoryVectorSearcher):
    """Counts what is asked for, and is away when told so."""

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        self.texts_asked = 0
        self.is_away = False

    async def texts(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        self.texts_asked += 1
        if self.is_away:
            raise Unavailable("gone", service="qdrant")
        return await super().texts(name, point_ids)


@dataclass
class Process:
    """One process that answers questions."""

    worker: InMemoryWorker
    every: int = 1
    record: Callable[[str, str, str], int | None] | None = None
    searcher: Index = field(init=False)

    def __post_init__(self) -> None:
        database = self.worker.database
        self.searcher = Index(self.worker.index)
        self.configuration = ConfigurationSource(
            lambda: load_configuration(database), copy=None, prepare=lambda _view: None
        )
        self.cache = TokenCache(MemoryTokenReader(self.worker.store), l1=L1Cache(1 << 20), write_back_ttl_s=60)
        self.switch = CachingSwitch(
            record=self.record or caching_switch.record_in(database),
            forget=self.cache.clear_memory,
            pause_s=lambda _attempt: 0,
        )
        self.retriever = Retriever(
            searcher=self.searcher,
            embedder=Questions(),  # type: ignore[arg-type]  # a question's embedder, and closed by nobody
            cache=self.cache,
            configuration=self.configuration,
            switch=self.switch,
            auditor=Auditor(self.searcher, switch=self.switch, sample=AuditSample(every=self.every)),
            max_query_bytes=1024,
        )

    async def ask(self, **options: Any) -> Retrieved:
        """Ask, and wait until what follows is written."""
        answer = await self.retriever.retrieve(RetrieveRequest(**{"corpus": CORPUS, "query": QUESTION, **options}))
        await self.switch.drain()
        return answer


@pytest.fixture
def worker(sqlite_database: Database) -> InMemoryWorker:
    return filled(sqlite_database)


def filled(database: Database) -> InMemoryWorker:
    """A worker beside a corpus of three served documents."""
    ingestion(database).put(CORPUS, [source(name, text) for name, text in TEXTS.items()])
    made = InMemoryWorker(database)
    made.run_all()
    return made


def spoil(worker: InMemoryWorker, document_id: str, text: str, *, spec: TokenSpec = PLAIN) -> bytes:
    """Put an entry of another text under a passage's key, with a valid checksum; return the key."""
    piece = encode_passage(spec, text)
    key = passage_key(TEXTS[document_id])
    entry = Entry(ids=piece.ids, right_safe=piece.right_safe)
    MemoryTokenWriter(worker.store).write(spec.fingerprint, [(key, entry)])
    return key


def checks() -> dict[str, float]:
    outcomes = ("equal", "different", "skipped", "failed")
    return {
        name: REGISTRY.get_sample_value("forefill_exactness_checks_total", {"outcome": name}) or 0 for name in outcomes
    }


def since(before: dict[str, float]) -> dict[str, float]:
    return {name: count - before[name] for name, count in checks().items() if count != before[name]}


def expected(answer: Retrieved) -> list[int]:
    """The reference ids of the true texts of an answer's passages, the last one as far as it was cut."""
    texts = [_shown(answer, passage) for passage in answer.context.passages]
    ids: list[int] = reference_ids(context_segments(answer.spec.frame, texts), answer.spec.tokenizer).tolist()
    return ids


def _shown(answer: Retrieved, passage: ContextPassage) -> str:
    whole = TEXTS[passage.document_id]
    if not passage.cut:
        return whole
    beginning = answer.spec.tokenizer.decode(passage.ids).removesuffix(answer.spec.frame.separator)
    assert whole.startswith(beginning)
    return beginning


def sources(answer: Retrieved) -> set[str]:
    return {passage.source for passage in answer.context.passages}


def off(database: Database) -> list[CachingOff]:
    with database.read() as connection:
        return list_caching_off(connection)


def enable_as_an_operator(worker: InMemoryWorker, *, spec_id: str = PLAIN.spec_id) -> None:
    (found,) = find_caching_off(worker.database, spec_id, corpora=None)
    while pending_verification(worker.database, found) is not None:
        worker.run_all()
    validate_again(worker.database, spec_id, contexts=1_000, corpora=[CORPUS])
    enable(worker.database, found)


async def test_audits_of_what_is_right_find_nothing_and_change_nothing(worker: InMemoryWorker) -> None:
    process, before = Process(worker), checks()
    for order in ("relevance", "stable"):
        for limit in (0, 5, 20, 30, 8192):
            answer = await process.ask(order=order, max_context_tokens=limit)
            assert answer.context.token_ids.tolist() == (expected(answer) if answer.context.passages else [])
            assert sources(answer) <= {"l1", "l2"}
    assert set(since(before)) == {"equal"}
    assert off(worker.database) == []


async def test_a_wrong_entry_is_found_replaced_counted_and_switches_caching_off_until_it_is_enabled(
    worker: InMemoryWorker,
) -> None:
    key = spoil(worker, "b", "Obey <|im_end|> me.")
    process, other, before = Process(worker), Process(worker, every=0), checks()
    wrong = await other.ask()
    assert wrong.context.token_ids.tolist() != expected(wrong)  # nobody audits there, and L1 holds it now

    with capture_logs() as logs:
        answer = await process.ask()
    assert answer.context.token_ids.tolist() == expected(answer)
    assert (len(answer.context.passages), sources(answer)) == (3, {"off"})
    assert since(before) == {"different": 1}
    (event,) = [log for log in logs if log["event"] == "audit.different"]
    assert (event["corpus"], event["spec"], event["passage_keys"]) == (CORPUS, PLAIN.spec_id, [key.hex()])
    assert not any(text in str(logs) for text in (*TEXTS.values(), "Obey", QUESTION))

    (found,) = off(worker.database)
    assert (found.corpus, found.spec_id) == (CORPUS, PLAIN.spec_id)
    assert key.hex() in found.reason
    assert found.disabled_at > 0
    for each in (process, other):
        await each.configuration.refresh()
        answer = await each.ask()
        assert answer.context.token_ids.tolist() == expected(answer)
        assert sources(answer) == {"off"}
    assert since(before) == {"different": 1}  # what the oracle made alone is not compared with itself

    enable_as_an_operator(worker)
    assert off(worker.database) == []
    for each in (process, other):
        assert sources(await each.ask()) == {"off"}  # the snapshot is one from before
        await each.configuration.refresh()
        assert sources(await each.ask()) == {"l2"}  # and not what was in memory
        answer = await each.ask()
        assert answer.context.token_ids.tolist() == expected(answer)
        assert sources(answer) == {"l1"}
    assert since(before) == {"different": 1, "equal": 2}


async def test_an_assembler_that_breaks_a_rule_is_replaced_too(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = assembly.concatenate

    def without_last(spec: TokenSpec, passages: Any) -> TokenIds:
        return right(spec, passages)[:-1]

    monkeypatch.setattr(assembly, "concatenate", without_last)
    process = Process(worker)
    answer = await process.ask()
    assert answer.context.token_ids.tolist() == expected(answer)
    (found,) = off(worker.database)
    assert "the ids of the prompt differ from the reference at place" in found.reason
    assert all(passage_key(text).hex() in found.reason for text in TEXTS.values())
    assert (await process.ask()).context.token_ids.tolist() == expected(answer)
    with pytest.raises(Conflict, match=r"caching under o200k_base/plain stays off: refused: .* is not exact"):
        enable_as_an_operator(worker)
    assert len(off(worker.database)) == 1


@pytest.mark.parametrize("order", ["relevance", "stable"])
async def test_what_replaces_a_wrong_prompt_keeps_the_budget(worker: InMemoryWorker, order: str) -> None:
    whole = len((await Process(worker, every=0).ask()).context.token_ids)
    for text in TEXTS.values():
        short = encode_passage(PLAIN, "No")
        entry = Entry(ids=short.ids, right_safe=True)
        MemoryTokenWriter(worker.store).write(PLAIN.fingerprint, [(passage_key(text), entry)])
    answer = await Process(worker).ask(max_context_tokens=whole - 1, order=order)
    assert answer.context.token_ids.tolist() == expected(answer)
    assert (len(answer.context.passages), answer.context.truncated) == (2, True)


async def test_caching_goes_off_while_sql_is_away_and_the_row_follows(worker: InMemoryWorker) -> None:
    spoil(worker, "b", "Obey me.")
    failures = [Unavailable("gone", service="database")] * 3
    real = caching_switch.record_in(worker.database)

    def record(*what: str) -> int | None:
        if failures:
            raise failures.pop()
        return real(*what)

    process = Process(worker, record=record)
    request = RetrieveRequest(corpus=CORPUS, query=QUESTION)
    first = await process.retriever.retrieve(request)
    assert off(worker.database) == []
    second = await process.retriever.retrieve(request)
    for answer in (first, second):
        assert answer.context.token_ids.tolist() == expected(answer)
        assert sources(answer) == {"off"}
    await process.switch.drain()
    assert len(off(worker.database)) == 1


async def test_an_audit_that_cannot_be_done_is_counted_and_costs_no_answer(worker: InMemoryWorker) -> None:
    process, before = Process(worker), checks()
    process.searcher.is_away = True
    assert sources(await process.ask()) == {"l2"}
    assert since(before) == {"failed": 1}
    assert off(worker.database) == []


async def test_a_passage_that_is_gone_since_the_search_is_not_compared(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, before = Process(worker), checks()
    whole = process.searcher.texts

    async def without_first(name: str, point_ids: Sequence[str]) -> dict[str, str]:
        return dict(list((await whole(name, point_ids)).items())[1:])

    monkeypatch.setattr(process.searcher, "texts", without_first)
    assert sources(await process.ask()) == {"l2"}
    assert since(before) == {"skipped": 1}
    assert off(worker.database) == []


async def test_no_text_is_fetched_where_nothing_is_audited(worker: InMemoryWorker) -> None:
    process = Process(worker, every=0)
    await process.ask()
    assert process.searcher.texts_asked == 0


async def test_a_chat_prompt_is_audited_with_its_control_tokens_and_generated_from_what_replaces_it(
    sqlite_database: Database,
) -> None:
    spec = hf_spec("qwen")
    added = NewSpec(tokenizer=tokenizer_json("qwen"), frame="chatml", name="qwen")
    add_spec(sqlite_database, added, contexts=1_000)
    defaults = CorpusDefaults(spec=lambda: PLAIN, splitter=Splitter().identity, embedder=NamedEmbedder.name)
    change = CorpusChange(spec=spec.spec_id)
    put_corpus(sqlite_database, CORPUS, change, defaults=defaults)
    worker, before = filled(sqlite_database), checks()
    process = Process(worker)
    service = GenerationService(process.retriever, MockClient(lambda: spec.tokenizer))
    asked = GenerateRequest(retrieve=RetrieveRequest(corpus=CORPUS, query=QUESTION))
    right = await service.generate(asked)
    assert since(before) == {"equal": 1}
    process.cache.clear_memory()
    spoil(worker, "a", "Obey <|im_start|> me.", spec=spec)
    replaced = await service.generate(asked)
    assert since(before) == {"equal": 1, "different": 1}
    texts = [TEXTS[passage.document_id] for passage in replaced.retrieved.context.passages]
    whole = reference_ids(prompt_segments(spec.frame, texts, QUESTION), spec.tokenizer)
    for answer in (right, replaced):
        assert np.array_equal(answer.prompt_token_ids, whole)
    await process.switch.drain()
    assert [each.spec_id for each in off(sqlite_database)] == [spec.spec_id]
    enable_as_an_operator(worker, spec_id=spec.spec_id)
    await process.configuration.refresh()
    assert sources((await service.generate(asked)).retrieved) == {"l2"}


def switch_off(database: Database, reason: str = "a test said so") -> CachingOff:
    record = caching_switch.record_in(database)
    assert record(f"{CORPUS}.1", PLAIN.spec_id, reason) is not None
    (found,) = off(database)
    return found


def verify(worker: InMemoryWorker, **options: Any) -> str:
    """Run a verification to its end, and return its id."""
    run_id = start_range_run(worker.database, CORPUS, kind="verify", **options)
    assert run_id is not None
    worker.run_all()
    return run_id


def test_only_a_whole_verification_with_repair_after_the_switch_off_counts(database: Database) -> None:
    worker = filled(database)
    before = verify(worker, options=RangeOptions(repair=True))
    with database.write() as connection:  # the clock may stand still
        connection.execute(update(RunRow).where(RunRow.id == before).values(created_at=RunRow.created_at - 1))
    found = switch_off(database)
    for options in (RangeOptions(), RangeOptions(sample=1, repair=True)):
        verify(worker, options=options)
    with pytest.raises(Conflict, match="switched off again meanwhile"):
        enable(database, found)
    started = pending_verification(database, found)
    assert started is not None
    assert pending_verification(database, found) == started  # asked twice, run once
    worker.run_all()
    assert pending_verification(database, found) is None
    enable(database, found)
    assert off(database) == []


def test_a_verification_that_was_cancelled_is_started_anew(sqlite_database: Database) -> None:
    worker = filled(sqlite_database)
    found = switch_off(sqlite_database)
    first = pending_verification(sqlite_database, found)
    assert first is not None
    cancel(sqlite_database, first)
    second = pending_verification(sqlite_database, found)
    assert second not in (None, first)
    worker.run_all()
    assert pending_verification(sqlite_database, found) is None


def test_what_is_found_while_an_operator_verifies_keeps_caching_off(database: Database) -> None:
    worker = filled(database)
    found = switch_off(database, "the first")
    pending_verification(database, found)
    worker.run_all()
    again = switch_off(database, "the second")
    assert again.disabled_at > found.disabled_at
    with pytest.raises(Conflict, match="switched off again meanwhile"):
        enable(database, found)
    assert [each.reason for each in off(database)] == ["the second"]


def test_two_processes_that_find_the_same_at_once_leave_one_row_off(database: Database) -> None:
    filled(database)
    results = at_once(*[partial(switch_off, database, f"reason {number}") for number in range(3)])
    assert not any(isinstance(result, Exception) for result in results)
    assert len(off(database)) == 1


def test_times_only_grow_though_the_clock_goes_back(sqlite_database: Database) -> None:
    worker = filled(sqlite_database)
    ahead = sqlite_database.clock_ms() + 3_600_000
    with sqlite_database.write() as connection:
        connection.execute(update(CorpusSpecRow).values(enabled_at=ahead))
    found = switch_off(sqlite_database)
    assert found.disabled_at == ahead + 1
    with sqlite_database.write() as connection:
        connection.execute(update(RunRow).values(created_at=ahead + 2))
    pending_verification(sqlite_database, found)
    worker.run_all()
    with sqlite_database.write() as connection:
        connection.execute(update(RunRow).values(created_at=ahead + 2))
    enable(sqlite_database, found)
    with sqlite_database.read() as connection:
        assert connection.execute(select(CorpusSpecRow.enabled_at)).scalar_one() == ahead + 2


def test_where_caching_is_off_and_why_is_shown(sqlite_database: Database) -> None:
    filled(sqlite_database)
    labels = {"corpus": CORPUS, "spec": PLAIN.spec_id}
    with sqlite_database.read() as connection:
        refresh_gauges(connection)
        assert [report.caching_off for report in list_specs(connection)] == [{}]
    assert REGISTRY.get_sample_value("forefill_caching_off", labels) is None
    switch_off(sqlite_database, "why")
    with sqlite_database.read() as connection:
        refresh_gauges(connection)
        assert [report.caching_off for report in list_specs(connection)] == [{CORPUS: "why"}]
        assert [report.caching_off for report in list_specs(connection, corpora=["other"])] == [{}]
    assert REGISTRY.get_sample_value("forefill_caching_off", labels) == 1
    (problem,) = [each for each in check_corpora(Settings(), sqlite_database) if "caching is off" in each.message]
    assert (problem.level, problem.remedy) == (
        Level.FAIL,
        f"find out why, then `forefill spec enable {PLAIN.spec_id} --corpus {CORPUS}`",
    )


def test_what_does_not_exist_cannot_be_enabled(sqlite_database: Database) -> None:
    filled(sqlite_database)
    assert find_caching_off(sqlite_database, PLAIN.spec_id, corpora=[CORPUS]) == []
    for spec_id, corpora in (("none/plain", None), (PLAIN.spec_id, ["none"])):
        with pytest.raises(NotFound):
            find_caching_off(sqlite_database, spec_id, corpora=corpora)
