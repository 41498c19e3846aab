"""When a schedule is due: pure functions of a cron expression, a time zone and a moment.

A schedule means times on the wall. Where clocks are put forward over one, it is due when the gap ends; where they are
put back over one, it is due the first time only. An hour field of `*` alone means every hour that passes, however the
clocks are called.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from pipeline.services.time_zones import load_zone

_PUT_BACK = timedelta(hours=4)
"""Clocks are put back by less: a time on the wall that much ahead of now may have passed already."""
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)


def next_nominal(cron: str, timezone: str, *, after_ms: int) -> int | None:
    """Return the first time a schedule means after a moment.

    Args:
        cron: Five valid fields.
        timezone: IANA name, of `time_zones.zone_names`.
        after_ms: Milliseconds since 1970-01-01 UTC.

    Returns:
        Milliseconds since 1970-01-01 UTC; None if there is none within 50 years.

    Raises:
        InvalidInput: There is no such time zone.
    """
    moment = datetime.fromtimestamp(after_ms / 1000, tz=UTC)
    return next((at for at in _moments(cron, load_zone(timezone), moment) if at > after_ms), None)


def latest_nominal(cron: str, timezone: str, *, until_ms: int) -> int | None:
    """Return the last time a schedule meant, up to and with a moment; see `next_nominal`."""
    moment = datetime.fromtimestamp(until_ms // 1000, tz=UTC) + _SECOND
    backwards = _moments(cron, load_zone(timezone), moment, reverse=True)
    return next((at for at in backwards if at <= until_ms), None)


def _moments(cron: str, zone: ZoneInfo, moment: datetime, *, reverse: bool = False) -> Iterator[int]:
    """Yield the times a schedule means in milliseconds, from a moment on, some before it perhaps, some twice."""
    local = moment.astimezone(zone)
    if cron.split()[1] == "*":
        for each in CronSim(cron, local, reverse=reverse):
            yield _milliseconds(each)
        return
    wall = local.replace(tzinfo=None)
    for each in CronSim(cron, wall + _PUT_BACK if reverse else wall, reverse=reverse):
        yield _milliseconds(_as_shown(each, zone))


def _as_shown(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment at which clocks show a time, or a later one if they never show it."""
    while True:
        moment = wall.replace(tzinfo=zone)
        if moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == wall:
            return moment
        wall += _MINUTE


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
