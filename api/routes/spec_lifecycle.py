"""Token specs of corpora that are being read: built beside the old one, activated, rolled back, dropped."""

from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.access import Caller
from api.bodies import JsonRoute, json_answer
from api.dependencies import ApiContext, Context, CurrentCaller
from api.paths import require_possible_corpus
from api.routes.specs import SpecId
from api.schemas import ActivateBody, BuildBody, SpecCorpusBody
from pipeline.database import Database
from pipeline.jobs.run_reports import RunReport, get_run
from pipeline.services import spec_lifecycle
from pipeline.services.presenting import JsonObject, activation_object, run_object, spec_object
from pipeline.services.spec_lifecycle import Activation
from pipeline.services.specs import list_specs

router = APIRouter(prefix="/v1/specs", tags=["specs"], route_class=JsonRoute)

_Change = Callable[[Database, Sequence[str] | None], list[Activation]]


@router.post("/{spec_id:path}/build", status_code=202)
async def build(context: Context, caller: CurrentCaller, spec_id: SpecId, body: BuildBody) -> Response:
    """Fill a corpus for a spec beside those it has; the answer is the backfill, while it goes on that one again."""
    _chosen(caller, body.corpus)

    def work() -> RunReport:
        run_id = spec_lifecycle.build(context.database, spec_id, body.corpus)
        with context.database.read() as connection:
            return get_run(connection, run_id)

    report = await context.write(work)
    context.nudger.nudge()
    return json_answer(run_object(report), status=202)


@router.post("/{spec_id:path}/activate")
async def activate(
    context: Context, caller: CurrentCaller, spec_id: SpecId, body: ActivateBody | None = None
) -> Response:
    """Have readers use a spec, if nothing that a corpus serves is missing under it; else 409 with what is.

    Without a corpus all that are filled for it, together. Readers follow within some seconds.
    """
    wanted = body or ActivateBody()
    return await _change(
        context,
        caller,
        spec_id,
        wanted.corpus,
        lambda database, corpora: spec_lifecycle.activate(database, spec_id, corpora=corpora, force=wanted.force),
    )


@router.post("/{spec_id:path}/rollback")
async def rollback(
    context: Context, caller: CurrentCaller, spec_id: SpecId, body: SpecCorpusBody | None = None
) -> Response:
    """Have readers use again what they used before; the address names the active spec, or the one to go back to."""
    corpus = None if body is None else body.corpus
    return await _change(
        context,
        caller,
        spec_id,
        corpus,
        lambda database, corpora: spec_lifecycle.roll_back(database, spec_id, corpora=corpora),
    )


@router.delete("/{spec_id:path}")
async def drop(
    context: Context,
    caller: CurrentCaller,
    spec_id: SpecId,
    corpus: Annotated[str | None, Query(description="Only in this corpus.")] = None,
) -> Response:
    """Fill a spec no more; its entries go with the next garbage collection. The active one cannot be dropped: 409."""
    corpora = _chosen(caller, corpus)

    def work() -> JsonObject:
        dropped = spec_lifecycle.drop(context.database, spec_id, corpora=corpora)
        return {**_spec(context, caller, spec_id), "corpora": dropped}

    return json_answer(await context.write(work))


async def _change(context: ApiContext, caller: Caller, spec_id: str, corpus: str | None, change: _Change) -> Response:
    corpora = _chosen(caller, corpus)

    def work() -> JsonObject:
        changed = change(context.database, corpora)
        return {**_spec(context, caller, spec_id), "corpora": [activation_object(each) for each in changed]}

    answer = await context.write(work)
    await context.read_path.configuration.refresh()
    return json_answer(answer)


def _chosen(caller: Caller, corpus: str | None) -> list[str] | None:
    """Return the one corpus that was named, or None for all.

    Raises:
        Forbidden: The key is not for it, or none was named and the key is for some.
    """
    if corpus is None:
        caller.require_every_corpus()
        return None
    caller.require_corpus(corpus)
    require_possible_corpus(corpus)
    return [corpus]


def _spec(context: ApiContext, caller: Caller, spec_id: str) -> JsonObject:
    with context.database.read() as connection:
        (report,) = list_specs(connection, only=spec_id, corpora=caller.corpora)
    return spec_object(report)
