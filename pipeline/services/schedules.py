"""Schedules: who wants which run when, evaluated from SQL.

The dispatcher that leads asks every second, Celery's beat every half minute; both call `evaluate_schedules`, any number
of them at once. A run names its schedule and the nominal time, and SQL takes a pair once: so one of them makes it.
"""

from dataclasses import dataclass

from cronsim import CronSimError
from sqlalchemy import ColumnElement, Connection, delete, func, select
from sqlalchemy.exc import IntegrityError

from pipeline.database import Database, now_ms, upsert
from pipeline.documents.corpora import Corpus
from pipeline.documents.tables import CorpusRow
from pipeline.errors import ForefillError, InvalidInput, Unavailable
from pipeline.jobs.range_runs import Nominal
from pipeline.jobs.tables import RunRow, ScheduleRow
from pipeline.services.nominal_times import latest_nominal, next_nominal
from pipeline.services.range_runs import start_range_run
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

NIGHTLY = "retokenize"
"""Kind of the runs that a corpus' schedule makes."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule, and how far it has been followed."""

    pk: int
    corpus: str
    cron: str
    timezone: str
    since: int
    """Milliseconds since 1970: times up to this one are done with, or were before it was set."""


def evaluate_schedules(database: Database) -> list[str]:
    """Start the runs that are due and return the ids of those made.

    However many times were missed, only the latest one is made up for. A schedule that cannot be followed is logged and
    keeps no other one waiting.

    Raises:
        Unavailable: The database did not answer.
    """
    with database.read() as connection:
        now = int(connection.execute(select(now_ms())).scalar_one())
        schedules = _load(connection)
    started = (_start(database, schedule, at) for schedule in schedules if (at := _due(schedule, now)) is not None)
    return [run_id for run_id in started if run_id is not None]


def keep_schedule(connection: Connection, corpus: Corpus) -> None:
    """Make the corpus' row of `schedules` say what its settings say, in the same transaction.

    A schedule that has changed counts from now on: a time that only the new one means and that has passed is not made
    up for.
    """
    existing = select(ScheduleRow.cron, ScheduleRow.timezone).where(*_of(corpus.pk))
    row = connection.execute(existing).first()
    if corpus.schedule is None:
        connection.execute(delete(ScheduleRow).where(*_of(corpus.pk)))
    elif row is None or (row.cron, row.timezone) != (corpus.schedule, corpus.timezone):
        values = {
            "corpus_pk": corpus.pk,
            "kind": NIGHTLY,
            "cron": corpus.schedule,
            "timezone": corpus.timezone,
            "created_at": connection.execute(select(now_ms())).scalar_one(),
        }
        table = ScheduleRow.metadata.tables["schedules"]
        upsert(connection, table, [values], key=["corpus_pk", "kind"], update=["cron", "timezone", "created_at"])


def _load(connection: Connection) -> list[Schedule]:
    followed = select(func.max(RunRow.nominal_at)).where(RunRow.schedule_pk == ScheduleRow.pk).scalar_subquery()
    statement = (
        select(ScheduleRow.pk, CorpusRow.name, ScheduleRow.cron, ScheduleRow.timezone, ScheduleRow.created_at, followed)
        .join(CorpusRow, CorpusRow.pk == ScheduleRow.corpus_pk)
        .where(CorpusRow.dropped_at.is_(None))
        .order_by(ScheduleRow.pk)
    )
    return [
        Schedule(pk, corpus, cron, timezone, max(created_at, latest or 0))
        for pk, corpus, cron, timezone, created_at, latest in connection.execute(statement)
    ]


def _due(schedule: Schedule, now: int) -> int | None:
    """Return the latest time a schedule meant that is not done with; None if there is none, or it means nothing."""
    try:
        following = next_nominal(schedule.cron, schedule.timezone, after_ms=schedule.since)
        if following is None or following > now:
            return None
        return latest_nominal(schedule.cron, schedule.timezone, until_ms=now)
    except (CronSimError, InvalidInput, OSError, ValueError) as error:
        _log.error("schedule.unreadable", corpus=schedule.corpus, error=str(error))
        return None


def _start(database: Database, schedule: Schedule, at: int) -> str | None:
    nominal = Nominal(schedule_pk=schedule.pk, at=at)
    try:
        run_id = start_range_run(database, schedule.corpus, kind=NIGHTLY, nominal=nominal)
    except Unavailable:
        raise
    except (ForefillError, IntegrityError) as error:  # the corpus or its schedule has just gone
        _log.warning("schedule.not_started", corpus=schedule.corpus, nominal_at=at, error=type(error).__name__)
        return None
    if run_id is not None:
        _log.info("schedule.started", corpus=schedule.corpus, run_id=run_id, nominal_at=at)
    return run_id


def _of(corpus_pk: int) -> tuple[ColumnElement[bool], ...]:
    return (ScheduleRow.corpus_pk == corpus_pk, ScheduleRow.kind == NIGHTLY)
