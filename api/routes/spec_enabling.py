"""Switching caching on again after an audit switched it off."""

from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from api.bodies import JsonRoute, json_answer
from api.dependencies import ApiContext, Context, CurrentCaller
from api.routes.specs import SpecId
from api.schemas import SpecCorpusBody
from api.streaming import CALLER_LEFT
from api.validating import Validation, while_wanted
from pipeline.documents.caching import CachingOff
from pipeline.errors import Unavailable
from pipeline.services.presenting import spec_object
from pipeline.services.spec_enabling import enable, find_caching_off, pending_verification, validate_again
from pipeline.services.specs import list_specs

router = APIRouter(prefix="/v1/specs", tags=["specs"], route_class=JsonRoute)

_LOOK_AGAIN_S = 5.0


@router.post("/{spec_id:path}/enable")
async def enable_spec(
    request: Request, context: Context, caller: CurrentCaller, spec_id: SpecId, body: SpecCorpusBody | None = None
) -> Response:
    """Verify the corpus (503 while that goes on), validate the spec again, and switch its caching on (200)."""
    corpora = caller.corpora
    if body is not None and body.corpus is not None:
        caller.require_corpus(body.corpus)
        corpora = [body.corpus]
    found = await context.in_thread(lambda: find_caching_off(context.database, spec_id, corpora=corpora))
    await _require_verified(context, found)
    if found:
        contexts = context.settings.spec_validation_contexts
        try:
            work = partial(_enable, context, spec_id, found)
            await while_wanted(request, work, contexts=contexts)
        except ClientDisconnect:
            return Response(status_code=CALLER_LEFT)
        await context.read_path.configuration.refresh()
    (report,) = await context.select(lambda connection: list_specs(connection, only=spec_id, corpora=caller.corpora))
    return json_answer(spec_object(report))


async def _require_verified(context: ApiContext, found: Sequence[CachingOff]) -> None:
    """Go on only when every corpus was verified; what is not verified is being verified from now on."""
    runs = {}
    for off in found:
        run_id = await context.write(partial(pending_verification, context.database, off))
        if run_id is not None:
            runs[off.corpus] = run_id
    if runs:
        context.nudger.nudge()
        named = ", ".join(f"corpus {corpus!r} by run {run_id}" for corpus, run_id in runs.items())
        raise Unavailable(
            f"caching is enabled after a verification, which goes on: {named}; ask again when it has ended",
            service="verification",
            retry_after_s=_LOOK_AGAIN_S,
        )


def _enable(context: ApiContext, spec_id: str, found: Sequence[CachingOff], validation: Validation) -> None:
    validate_again(
        context.database,
        spec_id,
        contexts=context.settings.spec_validation_contexts,
        corpora=[off.corpus for off in found],
        validate=validation.validate,
    )
    for off in found:
        enable(context.database, off)
