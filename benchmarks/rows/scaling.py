"""Does a passage cost the same in a corpus ten times as large, and does memory stay where it is?"""

from collections.abc import Iterator
from functools import partial
from itertools import count

from benchmarks.bench import Bench
from benchmarks.corpus import Document, salted
from benchmarks.filling import FillingStack, filling_stack
from benchmarks.harness import Measured, in_turn
from benchmarks.report import Row, at_most
from benchmarks.served import Served, serve
from pipeline.documents.splitting import Splitter

_MILLION = 1_000_000
_WITHIN = at_most(1.15)


def measure(bench: Bench) -> Iterator[Row]:
    """Fill corpora of growing size on one stack, in turn, and compare all with the smallest."""
    sizes = (*bench.sizes.scale_passages, *((_MILLION,) if bench.million else ()))
    folder = bench.new_folder()
    with filling_stack(folder, database_url=lambda: f"sqlite:///{folder / 'scale.db'}") as stack:
        corpora: dict[int, Served] = {}
        for size in sizes:
            bench.say(f"cost per passage: serving {size:,} passages")
            corpora[size] = serve(stack.database, stack.stack.settings, f"scale-{size}", _documents(bench, size))
        smallest = corpora[sizes[0]]
        bench.say("cost per passage: warming up")
        stack.fill(smallest)
        peaks: dict[int, dict[str, list[float]]] = {size: {"worker": [], "planner": []} for size in sizes}
        bench.say(f"cost per passage: {bench.sizes.rounds} rounds")
        sides = {str(size): partial(_fill, stack, corpora[size], peaks[size]) for size in sizes if size < _MILLION}
        taken = in_turn(sides, rounds=bench.sizes.rounds, unit="µs")
        if bench.million:
            bench.say("cost per passage: a million, once")
            taken |= in_turn({str(_MILLION): partial(_fill, stack, corpora[_MILLION], peaks[_MILLION])}, rounds=1)
    for size in sizes[1:]:
        yield from _rows(sizes[0], size, taken, peaks)


def _fill(stack: FillingStack, served: Served, peaks: dict[str, list[float]]) -> float:
    """Fill once; return microseconds a passage, and note how much memory was used."""
    with stack.watch() as watch:
        took_s = stack.fill(served)
    for name, peak_mb in watch.peaks_mb.items():
        peaks[name].append(peak_mb)
    return took_s / served.passages * 1e6


def _rows(
    small: int, large: int, taken: dict[str, Measured], peaks: dict[int, dict[str, list[float]]]
) -> Iterator[Row]:
    against = f"at {small:,} passages"
    yield Row(
        f"scaling.cost.{large}",
        f"time per passage at {large:,} passages",
        against,
        taken[str(large)].scaled(lambda value: value, "µs"),
        taken[str(small)],
        _WITHIN,
    )
    for name, what in (("worker", "largest worker process"), ("planner", "planner (dispatcher)")):
        yield Row(
            f"scaling.memory.{name}.{large}",
            f"memory of the {what} at {large:,} passages",
            against,
            Measured((max(peaks[large][name]),), "MB"),
            Measured((peaks[small][name][0],), "MB"),  # before any process had met the larger corpus
            _WITHIN,
        )


def _documents(bench: Bench, passages: int) -> Iterator[Document]:
    """Yield documents of about so many passages; the text begins anew, salted, where it is too short."""
    splitter = Splitter()
    left = passages
    for copy in count():
        for document in bench.documents:
            if left <= 0:
                return
            found = document if copy == 0 else salted(document, copy)
            left -= len(splitter.split(found.text))
            yield found
