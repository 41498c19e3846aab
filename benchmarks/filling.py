"""Runs over a corpus on the real stack, timed by SQL's own clock: from the first claim of a job to the last finish."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.harness import MemoryWatch
from benchmarks.served import Served, forget_entries
from benchmarks.texts import SPEC
from pipeline.factory import open_token_writer
from pipeline.jobs.claims import JOBS
from pipeline.jobs.range_runs import RangeOptions
from pipeline.jobs.redis_nudge import Nudger
from pipeline.jobs.run_reports import get_run
from pipeline.services.range_runs import start_range_run
from pipeline.tokenizers import load_spec
from tests.support.processes import Process
from tests.support.stack import Stack

AS_DEPLOYED: Mapping[str, str] = {
    "FOREFILL_LEASE_S": "30",
    "FOREFILL_HEARTBEAT_S": "10",
    "FOREFILL_DISPATCH_INTERVAL_S": "0.5",
    "FOREFILL_REPUBLISH_S": "15",
    "FOREFILL_VISIBILITY_TIMEOUT_S": "300",
    "FOREFILL_SPEC": SPEC,
    "FOREFILL_LOG_LEVEL": "INFO",
}
"""The defaults of a deployment, where tests have quicker ones."""

WORKERS = 2
"""Prefork children of the one worker."""

_LOOK_S = 0.05
_LOOK_FOR_A_CLAIM_S = 0.01
_GIVE_UP_S = 3600.0


class FillingStack:
    """Two Valkeys, SQL, the Qdrant owner, a dispatcher and a worker with two children."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.database = stack.database
        self._dispatcher = stack.start_dispatcher()
        self._worker: Process | None = None
        self._starts = 0

    def restart_worker(self) -> None:
        """Begin with processes that have done nothing yet."""
        if self._worker is not None:
            self._worker.kill_all()
        self._starts += 1
        self._worker = self.stack.start_worker(name=f"bench-{self._starts}")

    def fill(self, served: Served) -> float:
        """Forget every entry of a corpus, backfill it, and return the seconds that took."""
        self.forget(served)
        return self.run(served, kind="backfill")

    def forget(self, served: Served) -> None:
        """Empty ledger and cache; the cache's epoch stays, so nothing is refilled by itself."""
        forget_entries(self.database, served.pk)
        with closing(open_token_writer(self.stack.settings, timeout_s=60)) as cache:
            cache.clear(load_spec(SPEC).fingerprint)

    def run(self, served: Served, *, kind: str, only_changed: bool = False) -> float:
        """Start a run over a corpus, wait for its end, and return the seconds from first claim to last finish.

        Raises:
            RuntimeError: It did not succeed, or not within an hour.
        """
        options = RangeOptions(only_changed=only_changed)
        run_id = start_range_run(self.database, served.name, kind=kind, options=options)
        if run_id is None:
            raise RuntimeError(f"there is no run of kind {kind}")
        with closing(Nudger(self.stack.settings.broker_url)) as nudger:
            nudger.nudge()
            return self._wait(run_id)

    def count_entries(self) -> int:
        """Return the number of keys in the cache, the epoch not among them."""
        with self.stack.cache.client() as client:
            keys: int = client.dbsize()
            return keys - 1

    def watch(self) -> MemoryWatch:
        """Return a watch over the memory of the worker's children and of the planner."""
        return MemoryWatch(self._pids)

    def _pids(self) -> Mapping[str, Sequence[int]]:
        children = [] if self._worker is None else [child.pid for child in self._worker.children()]
        return {"worker": children, "planner": [self._dispatcher.pid]}

    def _wait(self, run_id: str) -> float:
        claims: list[int] = []
        deadline = time.monotonic() + _GIVE_UP_S
        first = select(func.min(JOBS.c.claimed_at)).where(JOBS.c.run_id == run_id)
        while time.monotonic() < deadline:
            with self.database.read() as connection:
                claimed_at = None if claims else connection.execute(first).scalar_one()
                run = get_run(connection, run_id)
            if claimed_at is not None:
                claims.append(claimed_at)
            if run.finished_at is not None:
                if run.state != "succeeded":
                    raise RuntimeError(f"run {run_id} has {run.state}")
                # A run may be over between two looks; its start then is the end of its first slice, and is not used.
                began_at = claims[0] if claims else run.created_at
                return max(1, run.finished_at - began_at) / 1000
            time.sleep(_LOOK_S if claims else _LOOK_FOR_A_CLAIM_S)
        raise RuntimeError(f"run {run_id} has not ended after {_GIVE_UP_S:.0f} s")


@contextmanager
def filling_stack(folder: Path, *, database_url: Callable[[], str]) -> Iterator[FillingStack]:
    """Start everything, a fresh worker last."""
    folder.mkdir(parents=True, exist_ok=True)
    with Stack(folder, database_url=database_url(), environment=AS_DEPLOYED) as stack:
        started = FillingStack(stack)
        started.restart_worker()
        yield started
