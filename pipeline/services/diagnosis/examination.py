"""The order of the checks, and what is skipped when what they need does not answer."""

from collections.abc import Iterator

from pipeline.database import Database
from pipeline.errors import ForefillError, Unavailable, operator_sentence
from pipeline.retrieval.qdrant import QdrantWriter
from pipeline.services.diagnosis import corpora, entries, index, redis_servers, working
from pipeline.services.diagnosis import database as databases
from pipeline.services.diagnosis.findings import Finding, Level
from pipeline.settings import Settings


def examine(settings: Settings, database: Database, writer: QdrantWriter) -> Iterator[Finding]:
    """Yield one finding after the other; nothing that is stored for users is changed.

    Args:
        settings: Of the deployment.
        database: May be away or at another revision.
        writer: May be away.
    """
    yield from redis_servers.check(settings)
    yield from index.check_behaviour(writer)
    usable = True
    for finding in databases.check(database, settings):
        usable = usable and finding.level != "fail"
        yield finding
    if not usable:
        return
    try:
        writes = databases.check_writes(database)
        yield writes
        yield from redis_servers.check_room(settings, database)
        yield from entries.check(settings, database)
        yield from index.check_size(writer, database)
        yield from working.check(settings, database, takes_writes=writes.level == Level.OK)
        yield from corpora.check(settings, database)
    except Unavailable as error:
        yield Finding.fail(error.service, operator_sentence(error), remedy="start it, then run `forefill doctor` again")
    except ForefillError as error:
        yield Finding.fail("doctor", str(error), remedy="correct it, then run `forefill doctor` again")
