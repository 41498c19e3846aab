"""File descriptors: a connection takes one, and most systems give a process 1,024 unless it asks for more."""

from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)


def have_descriptors(wanted: int) -> None:
    """Raise this process' soft limit to what it needs, as far as the hard limit lets it; a lower one is logged.

    Args:
        wanted: Descriptors that may be open at once.
    """
    try:
        import resource  # noqa: PLC0415  # not on Windows, which has no such limit
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    given = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    if given < wanted:
        _log.warning("listening.few_descriptors", wanted=wanted, given=given)
