"""Token specs: listing, reading and adding them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.requests import ClientDisconnect

from api.bodies import JsonRoute, json_answer
from api.dependencies import Context, CurrentCaller
from api.paging import After, Limit
from api.paths import decode_segment
from api.schemas import SpecBody
from api.streaming import CALLER_LEFT
from api.validating import Validation, while_wanted
from pipeline.documents.validation import shown
from pipeline.errors import NotFound
from pipeline.services.presenting import page_object, spec_object, validation_object
from pipeline.services.spec_adding import add_spec
from pipeline.services.specs import list_specs

router = APIRouter(prefix="/v1/specs", tags=["specs"], route_class=JsonRoute)


@router.get("")
async def list_all(context: Context, caller: CurrentCaller, after: After, limit: Limit = 100) -> Response:
    """List recorded specs by id, with what the caller's corpora do with them."""
    reports = await context.select(
        lambda connection: list_specs(connection, after=after, limit=limit, corpora=caller.corpora)
    )
    return json_answer(page_object("specs", [spec_object(report) for report in reports], limit=limit, key="id"))


def _spec_id(spec_id: Annotated[str, Path(description="`ENCODING/FRAME`; the `/` raw or percent-encoded.")]) -> str:
    """Return a spec's id.

    Raises:
        NotFound: No spec can be called so.
    """
    decoded = decode_segment(spec_id)
    if "\0" in decoded:
        raise NotFound(f"there is no spec {shown(decoded)}")
    return decoded


SpecId = Annotated[str, Depends(_spec_id)]
"""A spec's id from the address."""


@router.get("/{spec_id:path}")
async def show(context: Context, caller: CurrentCaller, spec_id: SpecId) -> Response:
    """Show one spec."""
    reports = await context.select(lambda connection: list_specs(connection, only=spec_id, corpora=caller.corpora))
    if not reports:
        raise NotFound(f"there is no spec {shown(spec_id)}")
    return json_answer(spec_object(reports[0]))


@router.post("", status_code=201)
async def add(request: Request, context: Context, caller: CurrentCaller, body: SpecBody) -> Response:
    """Validate a spec and add it (201), or say that it was there (200). Takes some ten seconds.

    Validating happens in a process of its own: questions are answered meanwhile. One at a time, the next is told to
    come back. A caller who leaves ends it.
    """
    contexts = context.settings.spec_validation_contexts

    def work(validation: Validation) -> tuple[object, int]:
        added = add_spec(
            context.database,
            body.to_spec(),
            contexts=contexts,
            corpora=caller.corpora,
            validate=validation.validate,
        )
        with context.database.read() as connection:
            (report,) = list_specs(connection, only=added.spec_id, corpora=caller.corpora)
        tried = None if added.report is None else validation_object(added.report)
        answer = {**spec_object(report), "created": added.created, "validation": tried}
        return answer, 201 if added.created else 200

    try:
        answer, status = await while_wanted(request, work, contexts=contexts)
    except ClientDisconnect:
        return Response(status_code=CALLER_LEFT)
    return json_answer(answer, status=status)
