"""Filling again what the cache has lost, and finding out what it has evicted.

A loss leaves a *debt* per corpus in SQL: entries stored within a span of time are not to be believed. The dispatcher
that leads pursues debts until nothing of a corpus is missing: it starts a backfill, looks again when that has ended,
and starts another one for what a job in flight has written down meanwhile. So nothing depends on who noticed the loss,
or on whether they lived to say so.
"""

from dataclasses import dataclass
from enum import Enum, auto

import orjson
from sqlalchemy import Connection, delete, exists, or_, select, update

from pipeline.database import Database, now_ms, rows_affected
from pipeline.documents.corpora import filled_specs
from pipeline.documents.ranges import unfilled
from pipeline.documents.states import DocumentState
from pipeline.documents.tables import CorpusRow, DocumentRow, LedgerRow, ManifestRow
from pipeline.errors import NotFound
from pipeline.jobs.claims import JOBS
from pipeline.jobs.installation import cache_epoch_at, get_fact, set_fact
from pipeline.jobs.range_runs import RangeOptions
from pipeline.jobs.states import JobState, RunState
from pipeline.jobs.tables import InstallationRow, RunRow
from pipeline.services.range_runs import start_range_run
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

CACHE_EVICTED_AT = "cache_evicted_at"
"""Fact: when the cache was last seen to have evicted something, in ms of the database's clock."""

_DEBT = "refill:"
"""Facts of this prefix and a corpus' number are debts."""

_SOON_MS = 5_000
"""Pause after a backfill that succeeded and yet left something: it was written while that ran."""
_LATER_MS = 600_000
"""Pause after one that failed, in part or whole, and after a verification."""

NEVER = -1
"""Time at which entries that are not believed were stored: before every epoch, the first of which begins at 0."""

_REPAIR = RangeOptions(repair=True)

WHOLE_REPAIR = _REPAIR.to_json()
"""Options of the verification by which coverage is known after evictions."""


@dataclass(frozen=True, slots=True)
class Debt:
    """Entries of one corpus that may be gone."""

    since: int
    """Those stored from this time on, in ms of the database's clock …"""
    before: int
    """… and before this one."""
    refill: bool
    """Whether they are to be written again, or only not to be believed."""

    def to_json(self) -> str:
        """Write it."""
        return orjson.dumps([self.since, self.before, self.refill]).decode()

    @classmethod
    def from_json(cls, text: str) -> "Debt":
        """Read what `to_json` wrote."""
        return cls(*orjson.loads(text))

    def joined(self, other: "Debt") -> "Debt":
        """Return one debt that holds both."""
        span = min(self.since, other.since), max(self.before, other.before)
        return Debt(*span, refill=self.refill or other.refill)


@dataclass(frozen=True, slots=True)
class LastRun:
    """A run that began after a loss, or goes on."""

    state: str
    finished_at: int | None


class Step(Enum):
    """What is to be done about a debt now."""

    WAIT = auto()
    """Something is at it, or was just now."""
    FORGET = auto()
    """Nothing more: it is settled, or an operator said so by cancelling."""
    LOOK = auto()
    """See whether something is missing, and start a backfill if so."""


def next_step(debt: Debt, last: LastRun | None, *, in_flight: bool, now: int) -> Step:
    """Decide what to do about a debt.

    Args:
        debt: The debt.
        last: The newest backfill that began after the loss.
        in_flight: Whether a job that began before the loss's end still runs: it may yet write down what is lost.
        now: The database's clock in ms.
    """
    if not debt.refill:
        return Step.WAIT if in_flight else Step.FORGET
    if last is None:
        return Step.LOOK
    if last.finished_at is None:
        return Step.WAIT
    if last.state == RunState.CANCELLED.value:
        return Step.FORGET
    pause_ms = _SOON_MS if last.state == RunState.SUCCEEDED.value else _LATER_MS
    return Step.LOOK if now - last.finished_at >= pause_ms else Step.WAIT


def owe(connection: Connection, corpus_pks: list[int], debt: Debt) -> None:
    """Add a debt to what corpora have of it already, and stop believing the entries at once."""
    for corpus_pk in corpus_pks:
        before = get_fact(connection, f"{_DEBT}{corpus_pk}")
        joined = debt if before is None else debt.joined(Debt.from_json(before))
        set_fact(connection, f"{_DEBT}{corpus_pk}", joined.to_json())
        disbelieve(connection, corpus_pk, debt)


def owe_everywhere(connection: Connection, debt: Debt) -> None:
    """Add a debt to every corpus."""
    owe(connection, kept_corpora(connection), debt)


def kept_corpora(connection: Connection) -> list[int]:
    """Return every corpus that was not dropped, by number."""
    kept = select(CorpusRow.pk).where(CorpusRow.dropped_at.is_(None)).order_by(CorpusRow.pk)
    return list(connection.execute(kept).scalars())


def pursue_refills(database: Database) -> list[str]:
    """Do what is to be done about every debt; return the ids of backfills that go on because of it.

    Raises:
        Unavailable: The database did not answer.
    """
    with database.read() as connection:
        owed = select(InstallationRow.key, InstallationRow.value).where(InstallationRow.key.startswith(_DEBT))
        debts = {int(key.removeprefix(_DEBT)): value for key, value in connection.execute(owed.order_by("key"))}
    started = [_pursue(database, corpus_pk, value) for corpus_pk, value in debts.items()]
    return [run_id for run_id in started if run_id is not None]


def _pursue(database: Database, corpus_pk: int, value: str) -> str | None:
    debt = Debt.from_json(value)
    with database.read() as connection:
        name = _name(connection, corpus_pk)
        in_flight = _in_flight(connection, corpus_pk, before=debt.before)
        last = _last_run(connection, corpus_pk, kind="backfill", options=RangeOptions(), after=debt.before)
        now = connection.execute(select(now_ms())).scalar_one()
        must_distrust = _is_believed(connection, corpus_pk, debt)
    if must_distrust:
        with database.write() as connection:
            disbelieve(connection, corpus_pk, debt)
    step = Step.FORGET if name is None else next_step(debt, last, in_flight=in_flight, now=now)
    if name is not None and step is Step.LOOK:
        if _has_unfilled(database, corpus_pk):
            return _start_backfill(database, name)
        step = Step.WAIT if in_flight else Step.FORGET
    if step is Step.FORGET:
        _forget(database, corpus_pk, value)
    return None


def _start_backfill(database: Database, name: str) -> str | None:
    try:
        run_id = start_range_run(database, name, kind="backfill")
    except NotFound:
        return None  # dropped this moment; the next look forgets it
    _log.warning("refill.started", corpus=name, run_id=run_id)
    return run_id


def _forget(database: Database, corpus_pk: int, value: str) -> None:
    """Drop a debt, unless it has grown meanwhile."""
    settled = (InstallationRow.key == f"{_DEBT}{corpus_pk}", InstallationRow.value == value)
    with database.write() as connection:
        if rows_affected(connection.execute(delete(InstallationRow).where(*settled))):
            _log.info("refill.settled", corpus_pk=corpus_pk)


def _name(connection: Connection, corpus_pk: int) -> str | None:
    statement = select(CorpusRow.name).where(CorpusRow.pk == corpus_pk, CorpusRow.dropped_at.is_(None))
    return connection.execute(statement).scalar_one_or_none()


def _in_flight(connection: Connection, corpus_pk: int, *, before: int) -> bool:
    running = (JOBS.c.state == JobState.RUNNING.value, JOBS.c.corpus_pk == corpus_pk, JOBS.c.claimed_at <= before)
    return connection.execute(select(JOBS.c.pk).where(*running).limit(1)).first() is not None


def _last_run(
    connection: Connection, corpus_pk: int, *, kind: str, options: RangeOptions, after: int
) -> LastRun | None:
    """Return the newest whole run of a kind that began after a time; one that began earlier if it still goes on."""
    statement = (
        select(RunRow.state, RunRow.finished_at)
        .where(RunRow.corpus_pk == corpus_pk, RunRow.kind == kind, RunRow.options == options.to_json())
        .where(RunRow.spec_id.is_(None), or_(RunRow.created_at >= after, RunRow.finished_at.is_(None)))
        .order_by(RunRow.finished_at.is_not(None), RunRow.id.desc())
        .limit(1)
    )
    row = connection.execute(statement).first()
    return None if row is None else LastRun(row.state, row.finished_at)


def _is_believed(connection: Connection, corpus_pk: int, debt: Debt) -> bool:
    """Return whether the ledger holds entries of a debt that are believed; none before the cache's epoch are."""
    since = max(debt.since, cache_epoch_at(connection), 0)
    if since >= debt.before:
        return False
    written = (LedgerRow.corpus_pk == corpus_pk, LedgerRow.written_at >= since, LedgerRow.written_at < debt.before)
    return connection.execute(select(LedgerRow.document_pk).where(*written).limit(1)).first() is not None


def disbelieve(connection: Connection, corpus_pk: int, debt: Debt) -> None:
    """Stop believing a corpus' ledger where a debt speaks of it."""
    since = max(debt.since, cache_epoch_at(connection), 0)
    if since < debt.before:
        written = (LedgerRow.corpus_pk == corpus_pk, LedgerRow.written_at >= since, LedgerRow.written_at < debt.before)
        connection.execute(update(LedgerRow).where(*written).values(written_at=NEVER))


def _has_unfilled(database: Database, corpus_pk: int) -> bool:
    """Return whether a backfill would find something to do: documents whose head is served, and not in the cache."""
    with database.read() as connection:
        specs = [spec.spec_id for spec in filled_specs(connection, corpus_pk)]
        missing = unfilled(specs, since=cache_epoch_at(connection))
        served = (DocumentRow.corpus_pk == corpus_pk, DocumentRow.state == DocumentState.SERVED.value)
        return connection.execute(select(DocumentRow.pk).where(*served, missing).limit(1)).first() is not None


def corpora_of_unknown_coverage(connection: Connection) -> dict[int, str]:
    """Return the corpora, name by number, whose entries may have been evicted since they were last verified.

    Known again after a new epoch, or after a whole verification with repair that began after the eviction was seen.
    """
    evicted_at = int(get_fact(connection, CACHE_EVICTED_AT) or 0)
    if evicted_at <= cache_epoch_at(connection):
        return {}
    verified = exists().where(
        RunRow.corpus_pk == CorpusRow.pk,
        RunRow.kind == "verify",
        RunRow.spec_id.is_(None),
        RunRow.options == WHOLE_REPAIR,
        RunRow.state.in_([RunState.SUCCEEDED.value, RunState.PARTIAL.value]),
        RunRow.created_at > evicted_at,
    )
    serves = exists().where(ManifestRow.corpus_pk == CorpusRow.pk)
    suspect = (CorpusRow.dropped_at.is_(None), CorpusRow.created_at <= evicted_at, serves, ~verified)
    rows = connection.execute(select(CorpusRow.pk, CorpusRow.name).where(*suspect))
    return {row.pk: row.name for row in rows}


def pursue_verifications(database: Database) -> list[str]:
    """Start a verification with repair of every corpus whose coverage is unknown; return the ids of those runs.

    A cache that is too small evicts what a repair writes: so there is a pause after each.

    Raises:
        Unavailable: The database did not answer.
    """
    with database.read() as connection:
        now = connection.execute(select(now_ms())).scalar_one()
        unknown = corpora_of_unknown_coverage(connection)
        last = {pk: _last_run(connection, pk, kind="verify", options=_REPAIR, after=0) for pk in unknown}
    started = [_start_verification(database, name) for pk, name in unknown.items() if _may_verify(last[pk], now=now)]
    return [run_id for run_id in started if run_id is not None]


def _may_verify(last: LastRun | None, *, now: int) -> bool:
    if last is None:
        return True
    return last.finished_at is not None and now - last.finished_at >= _LATER_MS


def _start_verification(database: Database, name: str) -> str | None:
    try:
        run_id = start_range_run(database, name, kind="verify", options=_REPAIR)
    except NotFound:
        return None
    _log.warning("verification.started", corpus=name, run_id=run_id)
    return run_id
