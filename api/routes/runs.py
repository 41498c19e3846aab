"""Runs: what was asked for, how far it is, and what failed."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from api.bodies import JsonRoute, json_answer
from api.dependencies import Context
from api.paging import After, Limit
from api.paths import RunId, require_possible_corpus
from pipeline.documents.corpora import get_corpus
from pipeline.errors import InvalidInput
from pipeline.jobs.runs import ItemError, RunReport, get_run, list_errors, list_runs
from pipeline.services.presenting import page_object, run_error_object, run_object

router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=JsonRoute)

_RUN_ID = re.compile(r"[0-9a-f-]{36}")


@router.get("")
async def list_all(
    context: Context,
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
        corpora = None
        if corpus is not None:
            require_possible_corpus(corpus)
            corpora = [get_corpus(connection, corpus).name]
        return list_runs(connection, corpora=corpora, before=after or None, limit=limit, unfinished=unfinished)

    reports = await context.select(select)
    return json_answer(page_object("runs", [run_object(report) for report in reports], limit=limit, key="id"))


@router.get("/{run_id}")
async def show(context: Context, run_id: RunId) -> Response:
    """Show one run."""
    return json_answer(run_object(await context.select(lambda connection: get_run(connection, run_id))))


@router.get("/{run_id}/errors")
async def errors(context: Context, run_id: RunId, after: After, limit: Limit = 100) -> Response:
    """List the documents that died in a run, by id."""

    def select(connection: Connection) -> list[ItemError]:
        get_run(connection, run_id)
        return list_errors(connection, run_id, after=after or None, limit=limit)

    items = [run_error_object(item) for item in await context.select(select)]
    return json_answer(page_object("errors", items, limit=limit, key="document_id"))
