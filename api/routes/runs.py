"""Runs: what was asked for, how far it is, and what failed."""

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from api.access import Caller
from api.bodies import JsonRoute, json_answer
from api.dependencies import ApiContext, Context, CurrentCaller
from api.paging import After, Limit
from api.paths import RunId, require_possible_corpus
from api.schemas import RunBody
from pipeline.database import Database
from pipeline.documents.corpora import get_corpus
from pipeline.errors import InvalidInput
from pipeline.jobs.run_reports import ItemError, RunReport, get_run, list_errors, list_runs
from pipeline.services import range_runs
from pipeline.services.presenting import page_object, run_error_object, run_object

router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=JsonRoute)

_RUN_ID = re.compile(r"[0-9a-f-]{36}")


@router.get("")
async def list_all(
    context: Context,
    caller: CurrentCaller,
    after: After,
    limit: Limit = 50,
    corpus: Annotated[str | None, Query(description="Only runs of this corpus.")] = None,
    *,
    unfinished: Annotated[bool, Query(description="Only runs that have not ended.")] = False,
) -> Response:
    """List runs, newest first."""
    if after and _RUN_ID.fullmatch(after) is None:
        raise InvalidInput("after: is no run's id", item="after")

    def select(connection: Connection) -> list[RunReport]:
        corpora = caller.corpora
        if corpus is not None:
            caller.require_corpus(corpus)
            require_possible_corpus(corpus)
            corpora = [get_corpus(connection, corpus).name]
        return list_runs(connection, corpora=corpora, before=after or None, limit=limit, unfinished=unfinished)

    reports = await context.select(select)
    return json_answer(page_object("runs", [run_object(report) for report in reports], limit=limit, key="id"))


@router.post("", status_code=202)
async def start(context: Context, caller: CurrentCaller, body: RunBody) -> Response:
    """Start a run over a corpus; while one that was asked to do the same goes on, the answer is that one."""
    caller.require_corpus(body.corpus)
    require_possible_corpus(body.corpus)

    def work() -> RunReport:
        run_id = range_runs.start_range_run(
            context.database, body.corpus, kind=body.kind, spec=body.spec, options=body.options.to_options()
        )
        assert run_id is not None  # noqa: S101  # only a schedule's run may be there already
        with context.database.read() as connection:
            return get_run(connection, run_id)

    report = await context.write(work)
    context.nudger.nudge()
    return json_answer(run_object(report), status=202)


@router.get("/{run_id}")
async def show(context: Context, caller: CurrentCaller, run_id: RunId) -> Response:
    """Show one run."""
    report = await context.select(lambda connection: caller.see_run(get_run(connection, run_id)))
    return json_answer(run_object(report))


@router.get("/{run_id}/errors")
async def errors(context: Context, caller: CurrentCaller, run_id: RunId, after: After, limit: Limit = 100) -> Response:
    """List the documents that died in a run or differed, by id."""

    def select(connection: Connection) -> list[ItemError]:
        caller.see_run(get_run(connection, run_id))
        return list_errors(connection, run_id, after=after or None, limit=limit)

    items = [run_error_object(item) for item in await context.select(select)]
    return json_answer(page_object("errors", items, limit=limit, key="document_id"))


@router.post("/{run_id}/cancel")
async def cancel(context: Context, caller: CurrentCaller, run_id: RunId) -> Response:
    """End a run for good; what it has written stays. Accepted writes cannot be cancelled: 409."""
    return await _act(context, caller, run_id, range_runs.cancel)


@router.post("/{run_id}/pause")
async def pause(context: Context, caller: CurrentCaller, run_id: RunId) -> Response:
    """Stop a run for now; its workers notice within a slice."""
    return await _act(context, caller, run_id, range_runs.pause)


@router.post("/{run_id}/resume")
async def resume(context: Context, caller: CurrentCaller, run_id: RunId) -> Response:
    """Let a paused run go on where it stopped."""
    return await _act(context, caller, run_id, range_runs.resume)


@router.post("/{run_id}/retry", status_code=202)
async def retry(context: Context, caller: CurrentCaller, run_id: RunId) -> Response:
    """Try again what failed; the answer is the run that does it."""
    return await _act(context, caller, run_id, range_runs.retry, status=202)


async def _act(
    context: ApiContext,
    caller: Caller,
    run_id: str,
    act: Callable[[Database, str], RunReport],
    *,
    status: int = 200,
) -> Response:
    def work() -> RunReport:
        with context.database.read() as connection:
            caller.see_run(get_run(connection, run_id))
        return act(context.database, run_id)

    report = await context.write(work)
    context.nudger.nudge()
    return json_answer(run_object(report), status=status)
