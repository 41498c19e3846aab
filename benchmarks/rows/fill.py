"""Filling a corpus: claim → SQL text → ids → entries → ledger, through Celery, against doing less by hand."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from benchmarks.bench import Bench
from benchmarks.filling import WORKERS, FillingStack, filling_stack
from benchmarks.harness import Measured, in_turn, rate, seconds
from benchmarks.report import Goal, Row, at_least, not_measured
from benchmarks.rivals.llamaindex import LlamaIndexKind, LlamaIndexRival, NotInstalledError
from benchmarks.rivals.tiktoken_fill import THREADS, encode_and_store, encode_only
from benchmarks.served import Served, serve
from benchmarks.texts import CutText, cut, load_tiktoken
from tests.support.ports import LOOPBACK
from tests.support.postgres import PostgresServer
from tests.support.valkey import ValkeyServer

_GOALS = {"sqlite": at_least(4), "postgresql": at_least(3)}
_MB = 1_000_000


def measure(bench: Bench) -> Iterator[Row]:
    """Yield the rows of SQLite, then those of PostgreSQL."""
    text = cut(bench.documents)
    for name, database in (("sqlite", _sqlite), ("postgresql", _postgresql)):
        bench.say(f"fill on {name}: serving {text.text_bytes / _MB:.0f} MB")
        with (
            database(bench) as url,
            filling_stack(bench.new_folder(), database_url=url) as stack,
            ValkeyServer(append_only=True) as other_cache,
        ):
            served = serve(stack.database, stack.stack.settings, "bench", bench.documents)
            rivals = _Rivals(bench, text, other_cache, with_llamaindex=name == "sqlite")
            yield from _measure_database(bench, name, stack, served, rivals)


@dataclass
class _Rivals:
    """The other sides, on a cache of their own."""

    bench: Bench
    text: CutText
    cache: ValkeyServer
    with_llamaindex: bool
    llamaindex_error: str = field(default="left out here", init=False)
    bounded: dict[LlamaIndexKind, list[str]] = field(init=False)
    """The part that LlamaIndex gets, cut as ours and whole."""

    def __post_init__(self) -> None:
        self._encoding = load_tiktoken()
        documents = self.bench.corpus.spread(self.bench.sizes.bounded_bytes)
        self.bounded = {"nodes": cut(documents).texts, "documents": [document.text for document in documents]}

    def sides(self) -> dict[str, Callable[[], float]]:
        """Return what to measure beside a fill; every one of them has been warmed up."""
        texts = self.text.texts
        encode_only(self._encoding, texts[:1000])
        found: dict[str, Callable[[], float]] = {
            "tiktoken": lambda: seconds(lambda: encode_only(self._encoding, texts)),
            "by hand": lambda: self._by_hand(texts),
        }
        if self.with_llamaindex:
            try:
                for kind, given in self.bounded.items():
                    rival = LlamaIndexRival(self.bench.new_folder(), given, kind=kind)
                    rival.run(host=LOOPBACK, port=self.cache.port)
                    found[f"llamaindex {kind}"] = partial(self._llamaindex, rival)
            except NotInstalledError as error:
                self.llamaindex_error = str(error)
        return found

    def _by_hand(self, texts: list[str]) -> float:
        self.cache.flush()
        with self.cache.client() as client:
            return seconds(lambda: encode_and_store(self._encoding, texts, client))

    def _llamaindex(self, rival: LlamaIndexRival) -> float:
        self.cache.flush()
        return rival.run(host=LOOPBACK, port=self.cache.port)


def _measure_database(bench: Bench, name: str, stack: FillingStack, served: Served, rivals: _Rivals) -> Iterator[Row]:
    sides = rivals.sides()
    bench.say(f"fill on {name}: cold")
    cold = rate(served.text_bytes / _MB, Measured((stack.fill(served),), "s"), "MB/s")
    if stack.count_entries() < len(rivals.text.passages):
        raise RuntimeError(f"{stack.count_entries()} entries are there after a fill of {len(rivals.text.passages)}")
    bench.say(f"fill on {name}: {bench.sizes.rounds} rounds of {', '.join(('Forefill', *sides))}")
    taken = in_turn({"ours": lambda: stack.fill(served), **sides}, rounds=bench.sizes.rounds)
    ours = rate(served.text_bytes / _MB, taken["ours"], "MB/s")
    what = f"fill on {name}, {WORKERS} worker processes, {served.passages:,} passages, {served.text_bytes / _MB:.0f} MB"
    yield Row(
        f"fill.{name}.tiktoken",
        what,
        f"tiktoken encode_ordinary_batch, {THREADS} threads, writing nothing",
        ours,
        rate(rivals.text.text_bytes / _MB, taken["tiktoken"], "MB/s"),
        _GOALS[name],
        cold,
    )
    yield Row(
        f"fill.{name}.by_hand",
        what,
        f"tiktoken batch, {THREADS} threads, JSON, Redis pipeline; text in hand",
        ours,
        rate(rivals.text.text_bytes / _MB, taken["by hand"], "MB/s"),
        at_least(6),
    )
    if rivals.with_llamaindex:
        for kind in rivals.bounded:
            yield _llamaindex_row(name, what, ours, taken, rivals, kind)
    yield from _again_rows(bench, name, stack, served, taken["ours"])


def _llamaindex_row(
    name: str, what: str, ours: Measured, taken: Mapping[str, Measured], rivals: _Rivals, kind: LlamaIndexKind
) -> Row:
    said = {"nodes": "ready-made nodes", "documents": "documents, which its SentenceSplitter cuts"}[kind]
    key, goal = f"fill.{name}.llamaindex.{kind}", at_least(10)
    against = f"LlamaIndex IngestionPipeline, Redis cache; {said}"
    theirs = taken.get(f"llamaindex {kind}")
    if theirs is None:
        return not_measured(key, what, against, why=rivals.llamaindex_error, goal=goal)
    size = sum(len(text.encode()) for text in rivals.bounded[kind]) / _MB
    remark = f"LlamaIndex got {size:.1f} MB, after a warm-up; compared by MB/s"
    return Row(key, what, against, ours, rate(size, theirs, "MB/s"), goal, remark=remark)


def _again_rows(bench: Bench, name: str, stack: FillingStack, served: Served, first: Measured) -> Iterator[Row]:
    """Measure the same again when nothing has changed: ours over the first time would be below 1, so it is turned."""
    bench.say(f"fill on {name}: the same again")
    again = {
        "backfill": lambda: stack.run(served, kind="backfill"),
        "only_changed": lambda: stack.run(served, kind="retokenize", only_changed=True),
    }
    taken = in_turn(again, rounds=max(3, bench.sizes.rounds))
    goals: dict[str, Goal | None] = {"backfill": None, "only_changed": at_least(20)}
    for kind, what in (("only_changed", "retokenize --only-changed"), ("backfill", "the same backfill")):
        ours = rate(served.passages, taken[kind], "passages/s")
        theirs = rate(served.passages, first, "passages/s")
        yield Row(f"fill.{name}.{kind}", f"{what} again on {name}", "the first time", ours, theirs, goals[kind])


@contextmanager
def _sqlite(bench: Bench) -> Iterator[Callable[[], str]]:
    folder = bench.new_folder()
    yield lambda: f"sqlite:///{folder / 'bench.db'}"


@contextmanager
def _postgresql(_bench: Bench) -> Iterator[Callable[[], str]]:
    with PostgresServer(durable=True) as server:
        yield lambda: server.url(server.create_database())
