"""Is it alive, can it serve, what does it measure, and a page to look at."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import anyio
import anyio.to_thread
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Metric, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import HTMLResponse

from api.access import NOBODY, Caller
from api.bodies import JsonRoute, json_answer
from api.dependencies import ApiContext, Context, CurrentCaller
from api.errors import problem
from api.status_page import StatusView, load_status, render_status
from pipeline.errors import ConfigurationError, ForefillError, Unavailable, operator_sentence
from pipeline.services.gauges import refresh_gauges
from pipeline.services.presenting import JsonObject
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import CACHE_HIT_RATE, SharedMetrics, shared_folder

_log = get_logger(__name__)

router = APIRouter(tags=["health"], route_class=JsonRoute)

_CHECK_TIMEOUT_S = 2.0
_WRITE_TIMEOUT_S = 1.0
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class _Check:
    """One thing this process depends on."""

    name: str
    ask: Callable[[ApiContext], Awaitable[None]]
    required: bool = True
    """False: questions are answered without it."""


async def _ask_database(context: ApiContext) -> None:
    await anyio.to_thread.run_sync(context.database.ping, abandon_on_cancel=True)
    with anyio.move_on_after(_WRITE_TIMEOUT_S):  # another writer may be at it; what comes later is said next time
        await anyio.to_thread.run_sync(context.database_writes.require_writes, abandon_on_cancel=True)


async def _ask_cache(context: ApiContext) -> None:
    await context.read_path.cache.ping()
    await anyio.to_thread.run_sync(context.cache_writes.require_writes, abandon_on_cancel=True)
    mismatch = await anyio.to_thread.run_sync(context.cache.key_mismatch, abandon_on_cancel=True)
    if mismatch is not None:
        raise ConfigurationError(mismatch)


async def _ask_broker(context: ApiContext) -> None:
    await anyio.to_thread.run_sync(context.broker_writes.require_writes, abandon_on_cancel=True)


async def _ask_qdrant(context: ApiContext) -> None:
    await context.read_path.searcher.ping()


async def _ask_configuration(context: ApiContext) -> None:
    context.read_path.configuration.current()


async def _ask_golden_ids(context: ApiContext) -> None:
    if context.golden_failure is not None:
        raise ConfigurationError(context.golden_failure)


_CHECKS = (
    _Check("database", _ask_database, required=False),  # not ok, too, when it answers and takes no writes
    _Check("cache", _ask_cache, required=False),  # not ok, too, when it answers and takes no writes
    _Check("broker", _ask_broker, required=False),
    _Check("qdrant", _ask_qdrant),
    _Check("configuration", _ask_configuration),
    _Check("golden_ids", _ask_golden_ids),
)


@router.get("/healthz")
async def alive() -> Response:
    """Answer while the process lives."""
    return json_answer({"alive": True})


@router.get("/readyz")
async def ready(context: Context, caller: CurrentCaller) -> Response:
    """Answer 200 when questions can be answered, else 503; each dependency is named.

    Reasons name hosts and ports of the deployment, so they are for callers with a key, where there are keys.
    """
    results: dict[str, JsonObject] = {}

    async def look(check: _Check) -> None:
        result = await _look(check, context)
        results[check.name] = {"ok": result["ok"]} if caller is NOBODY else result

    async with anyio.create_task_group() as group:
        for check in _CHECKS:
            group.start_soon(look, check)
    checks = {check.name: results[check.name] for check in _CHECKS}
    missing = [check.name for check in _CHECKS if check.required and not checks[check.name]["ok"]]
    if missing:
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"not ready: {', '.join(missing)}",
            headers={"Retry-After": "1"},
            ready=False,
            checks=checks,
        )
    degraded = [name for name, result in checks.items() if not result["ok"]]
    return json_answer({"ready": True, "degraded": degraded, "checks": checks})


async def _look(check: _Check, context: ApiContext) -> JsonObject:
    try:
        with anyio.fail_after(_CHECK_TIMEOUT_S):
            await check.ask(context)
    except TimeoutError:
        return {"ok": False, "reason": f"no answer within {_CHECK_TIMEOUT_S:g} s"}
    except ForefillError as error:
        return {"ok": False, "reason": operator_sentence(error)}
    return {"ok": True}


@router.get("/metrics")
async def metrics(context: Context, caller: CurrentCaller) -> Response:
    """Show metrics in Prometheus' format; coverage and queues as SQL says now, or as it last said."""
    try:
        await context.select(refresh_gauges)
    except Unavailable as error:
        _log.warning("api.gauges_not_refreshed", error=str(error))
    source: Collector = REGISTRY
    folder = shared_folder()
    if context.settings.api_processes > 1 and folder is not None:
        CACHE_HIT_RATE.set((await context.in_thread(context.statistics.stats)).hit_rate)
        source = SharedMetrics(folder)
    text = await context.in_thread(lambda: generate_latest(_VisibleMetrics(caller, source)))
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _VisibleMetrics(Collector):
    """All metrics of a source, but those of corpora that a caller's key is not for."""

    def __init__(self, caller: Caller, source: Collector) -> None:
        self._caller = caller
        self._source = source

    def collect(self) -> Iterator[Metric]:
        for metric in self._source.collect():
            metric.samples = [sample for sample in metric.samples if self._may_see(sample.labels)]
            yield metric

    def _may_see(self, labels: Mapping[str, str]) -> bool:
        return "corpus" not in labels or self._caller.reaches(labels["corpus"])


@router.get("/", include_in_schema=False)
async def status_page(context: Context, caller: CurrentCaller) -> Response:
    """Show corpora, queues and recent runs to a person."""
    try:
        view = await context.select(lambda connection: load_status(connection, corpora=caller.corpora))
    except Unavailable as error:
        view = StatusView(problem=str(error))
    page = render_status(view, lookups=await context.in_thread(context.statistics.stats))
    return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})
