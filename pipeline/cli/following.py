"""Following a run to its end, and saying what to check when it does not move."""

import time
from collections.abc import Callable

import typer
from sqlalchemy import select

from pipeline.cli.output import Output
from pipeline.cli.patience import patiently
from pipeline.cli.progress import Report, show_progress
from pipeline.database import Database
from pipeline.documents.tables import CorpusRow
from pipeline.jobs.claims import JOBS
from pipeline.jobs.dispatcher import ROLE
from pipeline.jobs.presence import find_leader
from pipeline.jobs.run_reports import RunReport, get_run
from pipeline.jobs.states import RUN_ENDED, JobState, Outcome, RunState
from pipeline.jobs.store import queue_status
from pipeline.services.presenting import run_object

POLL_S = 0.25
"""Seconds between two looks."""
STALL_S = 30.0
"""Seconds without progress after which a user is told what to check."""


class StallClock:
    """Notices that nothing has moved for a while, once per standstill."""

    def __init__(self, *, limit_s: float = STALL_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._moved_at = clock()
        self._last: object = None
        self._told = False

    def stalls(self, state: object) -> bool:
        """Return whether `state` has just been the same for the limit; True once until it changes."""
        if state != self._last:
            self._last, self._moved_at, self._told = state, self._clock(), False
            return False
        if self._told or self._clock() - self._moved_at < self._limit_s:
            return False
        self._told = True
        return True


def follow_run(database: Database, run_id: str, *, output: Output, streams: bool) -> RunReport:
    """Show a run's progress until it has ended, and return it then.

    Args:
        database: Where runs are.
        run_id: The run.
        output: Where progress goes.
        streams: Whether every change is also printed as a line of JSON.

    Raises:
        NotFound: There is no such run.
        KeyboardInterrupt: The user had enough; the run goes on, and that is said.
    """
    clock = StallClock()
    printed: object = None
    retrying = patiently(output)
    try:
        with show_progress(output, f"run {run_id}") as report_progress:
            while True:
                report = retrying(_look, database, run_id)
                _report(report, report_progress)
                if streams and (current := run_object(report)) != printed:
                    printed = current
                    output.emit(current)
                if report.state in RUN_ENDED:
                    return report
                if clock.stalls(dict(report.totals)):
                    for hint in stall_hints(database, report):
                        output.note(hint)
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        output.note(f"run {run_id} goes on; `forefill runs watch {run_id}` shows it again")
        raise


def conclude(report: RunReport, *, output: Output) -> None:
    """Print the totals of a run that has ended; what did not succeed ends the command with exit code 1."""
    output.line(describe_run(report))
    if report.state == RunState.SUCCEEDED.value:
        return
    if report.totals["dead"]:
        output.note(f"{report.totals['dead']} documents are dead: `forefill runs errors {report.id}` says why")
    raise typer.Exit(1)


def describe_run(report: RunReport) -> str:
    """Return a run in one line."""
    counts = ", ".join(f"{report.totals[outcome]:,} {outcome}" for outcome in Outcome if report.totals[outcome])
    seconds = ""
    if report.finished_at is not None:
        seconds = f" in {(report.finished_at - report.created_at) / 1000:.1f} s"
    error = f" ({report.error})" if report.error else ""
    return f"run {report.id} {report.state}: {counts or 'no documents'}, {report.tokens:,} tokens{seconds}{error}"


def stall_hints(database: Database, report: RunReport) -> list[str]:
    """Return what may keep a run from moving, most likely first."""
    with database.read() as connection:
        queues = queue_status(connection)
        leader = find_leader(connection, ROLE)
        waiting = (
            select(JOBS.c.last_error)
            .join(CorpusRow, CorpusRow.pk == JOBS.c.corpus_pk)
            .where(CorpusRow.name == report.corpus, JOBS.c.state == JobState.PENDING.value)
            .where(JOBS.c.last_error.is_not(None))
            .order_by(JOBS.c.pk.desc())
            .limit(1)
        )
        error = connection.execute(waiting).scalar_one_or_none()
    hints = [
        f"no worker consumes queue {queue.name}: start `forefill worker`"
        for queue in queues
        if queue.depth and not queue.workers
    ]
    if report.state == RunState.PAUSED:
        return [f"run {report.id} is paused: `forefill runs resume {report.id}` lets it go on"]
    if leader is None:
        hints.append("no dispatcher tells workers of pending jobs: start `forefill dispatcher`")
    if error is not None:
        hints.append(f"the last attempt failed: {error}")
    if not report.sealed:
        hints.append(f"run {report.id} is still being filled by its client")
    return hints or ["nothing has moved for a while: `forefill doctor` looks for the cause"]


def _look(database: Database, run_id: str) -> RunReport:
    with database.read() as connection:
        return get_run(connection, run_id)


def _report(report: RunReport, progress: Report) -> None:
    total, pending = report.totals["documents"], report.totals["pending"]
    eta = f", {report.eta_s:.0f} s to go" if report.eta_s else ""
    dead = f", {report.totals['dead']:,} dead" if report.totals["dead"] else ""
    share = (total - pending) / total if total else None
    progress(share, f"{total - pending:,} of {total:,} documents, {report.tokens:,} tokens{dead}{eta}")
