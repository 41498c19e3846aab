"""Workers that live but claim nothing: seen from SQL, because a wedged worker still answers pings.

A worker whose connection died silently, or whose acknowledgement timed out, can stay idle for ever without a log line.
One that was told nothing is not at fault: jobs count once the dispatcher has published them.
"""

from sqlalchemy import func, select

from pipeline.database import Database, now_ms
from pipeline.jobs.states import JobState
from pipeline.jobs.store import queue_status
from pipeline.jobs.tables import JobRow

WEDGED_S = 30.0
"""Jobs due and published, workers seen, nothing claimed for this long: they are suspected."""

_PENDING = JobState.PENDING.value


def find_wedged_queues(database: Database, *, after_s: float = WEDGED_S) -> set[str]:
    """Return the queues whose due jobs nobody claims although workers say that they consume them and none works.

    By the database's clock, so that it is a suspicion only: after a minute in which the machine slept it holds, too.

    Raises:
        Unavailable: The database did not answer.
    """
    with database.read() as connection:
        waiting = {
            status.name
            for status in queue_status(connection)
            if status.workers and not status.running and status.overdue_s > after_s
        }
        claims = select(JobRow.queue, func.max(JobRow.claimed_at), now_ms()).group_by(JobRow.queue)
        claimed = {queue: (now - (at or 0)) / 1000 for queue, at, now in connection.execute(claims)}
        told = select(JobRow.queue).where(JobRow.state == _PENDING, JobRow.published_at.is_not(None)).distinct()
        waiting.intersection_update(connection.execute(told).scalars())
    return {queue for queue in waiting if claimed.get(queue, after_s + 1) > after_s}
