"""Statistics of lookups and of the cache, and clearing the cache."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.bodies import JsonRoute, json_answer
from api.dependencies import Context, CurrentCaller
from api.paths import require_possible_corpus
from pipeline.errors import Unavailable
from pipeline.jobs.store import queue_status
from pipeline.services.cache_clearing import clear_entries
from pipeline.services.inspection import list_coverage
from pipeline.services.presenting import cleared_object, stats_object
from pipeline.telemetry.logs import get_logger
from pipeline.token_cache import CacheServer

_log = get_logger(__name__)

router = APIRouter(prefix="/v1", tags=["statistics"], route_class=JsonRoute)


@router.get("/stats")
async def stats(context: Context, caller: CurrentCaller) -> Response:
    """Show hits and misses of all processes of this port, coverage of the caller's corpora, and queues."""

    def ask_cache() -> CacheServer | None:
        try:
            return context.cache.server()
        except Unavailable as error:
            _log.warning("api.cache_unknown", error=str(error))
            return None

    server = await context.in_thread(ask_cache)
    coverage, queues = await context.select(
        lambda connection: (list_coverage(connection, corpora=caller.corpora), queue_status(connection))
    )
    lookups = await context.in_thread(context.statistics.stats)
    return json_answer(stats_object(lookups=lookups, server=server, coverage=coverage, queues=queues))


@router.post("/stats/reset")
async def reset(context: Context, caller: CurrentCaller) -> Response:
    """Count hits, misses, errors and latencies anew, in all processes of this port; Prometheus counters go on."""
    caller.require_every_corpus()
    await context.in_thread(context.statistics.reset_stats)
    return json_answer({"reset": True})


@router.delete("/cache")
async def clear(
    context: Context,
    caller: CurrentCaller,
    corpus: Annotated[str | None, Query(description="Only entries of passages this corpus serves.")] = None,
    *,
    refill: Annotated[bool, Query(description="Queue filling it again.")] = True,
) -> Response:
    """Drop token entries, and nothing else that the cache may hold."""
    if corpus is None:
        caller.require_every_corpus()
    else:
        caller.require_corpus(corpus)
        require_possible_corpus(corpus)
    cleared = await context.write(lambda: clear_entries(context.database, context.cache, corpus=corpus, refill=refill))
    context.read_path.cache.clear_memory()  # other processes keep theirs: entries in memory are never stale
    context.nudger.nudge()
    return json_answer(cleared_object(cleared))
