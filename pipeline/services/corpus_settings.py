"""Creating corpora on purpose, and changing what may change about them; for HTTP and the command line alike."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError
from sqlalchemy import Connection, select

from pipeline.database import Database, now_ms
from pipeline.documents.corpora import Corpus, change_corpus, create_corpus, filled_specs, find_corpus, list_corpora
from pipeline.documents.splitting import Splitter
from pipeline.documents.validation import check_corpus_name, shown
from pipeline.errors import Conflict, InvalidInput
from pipeline.services.ingestion import CorpusDefaults
from pipeline.services.nominal_times import next_nominal
from pipeline.services.schedules import keep_schedule
from pipeline.services.spec_loading import SpecLoader
from pipeline.services.specs import ensure_spec
from pipeline.services.time_zones import load_zone

NO_SCHEDULE = ""
"""As a change: remove the schedule."""

_MAX_SCHEDULE_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusChange:
    """What a caller says about a corpus. None: as it is, or the default for a new one."""

    spec: str | None = None
    """Token spec, `ENCODING/FRAME`."""
    splitter: str | None = None
    """Identity of a splitter."""
    embedder: str | None = None
    """Identity of an embedder; only the one this deployment embeds with."""
    schedule: str | None = None
    """Cron expression of five fields, or `NO_SCHEDULE`."""
    timezone: str | None = None
    """Name in the IANA database."""


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """A corpus, the spec its readers use, and when its schedule is due."""

    corpus: Corpus
    spec_id: str | None
    next_run_at: int | None
    """Milliseconds since 1970-01-01 UTC; None without a schedule."""


def describe_corpus(connection: Connection, corpus: Corpus) -> CorpusReport:
    """Return a corpus with its active spec and the next time its schedule means."""
    active = [spec.spec_id for spec in filled_specs(connection, corpus.pk) if spec.status == "active"]
    next_run_at = None
    if corpus.schedule is not None:
        now = connection.execute(select(now_ms())).scalar_one()
        with suppress(InvalidInput):  # a zone that an earlier version took; `doctor` names it
            next_run_at = next_nominal(corpus.schedule, corpus.timezone, after_ms=now)
    return CorpusReport(corpus, active[0] if active else None, next_run_at)


def describe_corpora(
    connection: Connection, *, after: str = "", limit: int | None = None, names: Sequence[str] | None = None
) -> list[CorpusReport]:
    """Return corpora ordered by name, those after a name; with `names` only those of these that there are."""
    corpora = list_corpora(connection, after=after, limit=limit, names=names)
    return [describe_corpus(connection, corpus) for corpus in corpora]


def put_corpus(
    database: Database, name: str, change: CorpusChange, *, defaults: CorpusDefaults
) -> tuple[CorpusReport, bool]:
    """Create a corpus, or change an existing one; return it, and whether it is new.

    Two creators of one name race here: the unique name settles it, and the loser's values are a change to what the
    winner made.

    Raises:
        InvalidInput: Name, spec, splitter, schedule or time zone are none.
        Conflict: What it says cannot be changed any more.
    """
    check_corpus_name(name)
    schedule = None if change.schedule is None else check_schedule(change.schedule)
    timezone = None if change.timezone is None else check_timezone(change.timezone)
    spec = defaults.spec() if change.spec is None else SpecLoader(database).load(change.spec)
    with database.write() as connection:
        corpus = find_corpus(connection, name)
        created = corpus is None
        if corpus is None:
            ensure_spec(connection, spec)
            corpus = create_corpus(
                connection, name, spec_id=spec.spec_id, splitter=defaults.splitter, embedder=defaults.embedder
            )
        report = describe_corpus(connection, corpus)
        if change.spec is not None and change.spec != report.spec_id:
            raise Conflict(f"corpus {name!r} uses spec {report.spec_id}: another one is added, filled and activated")
        values: dict[str, str | None] = {}
        if change.splitter is not None and change.splitter != corpus.splitter:
            values["splitter"] = Splitter.from_identity(change.splitter).identity
        if change.embedder is not None and change.embedder != corpus.embedder:
            values["embedder"] = _check_embedder(change.embedder, available=defaults.embedder)
        if schedule is not None:
            values["schedule"] = schedule or None
        if timezone is not None:
            values["timezone"] = timezone
        changed = change_corpus(connection, corpus, **values)
        if "schedule" in values or "timezone" in values:
            keep_schedule(connection, changed)  # under the lock of the row that was just changed
        return describe_corpus(connection, changed), created


def check_schedule(expression: str) -> str:
    """Return a cron expression in its plain form, fields parted by one space; `NO_SCHEDULE` stays.

    Raises:
        InvalidInput: It has not five fields, one of them is none, or it never comes true.
    """
    if expression == NO_SCHEDULE:
        return NO_SCHEDULE
    fields = expression.split()
    if len(fields) != 5 or len(expression) > _MAX_SCHEDULE_CHARACTERS:
        raise InvalidInput(f"schedule {shown(expression)} must be a cron expression of 5 fields", item="schedule")
    plain = " ".join(fields)
    try:
        next(CronSim(plain, datetime.now(UTC)))
    except CronSimError as error:
        raise InvalidInput(f"schedule {shown(expression)}: {error}", item="schedule") from error
    except StopIteration:
        raise InvalidInput(f"schedule {shown(expression)} never comes true", item="schedule") from None
    return plain


def check_timezone(name: str) -> str:
    """Return a time zone's name if there is such a zone, the same on every host.

    Raises:
        InvalidInput: There is none.
    """
    load_zone(name)
    return name


def _check_embedder(name: str, *, available: str) -> str:
    if name != available:
        raise InvalidInput(f"embedder {shown(name)} is not the one of this deployment, {available}", item="embedder")
    return name
