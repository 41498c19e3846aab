"""Token specs: listing, reading and adding them."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import anyio.from_thread
import anyio.to_process
from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, Path, Response

from api.bodies import JsonRoute, json_answer
from api.dependencies import Context, CurrentCaller
from api.paging import After, Limit
from api.paths import decode_segment
from api.schemas import SpecBody
from pipeline.context import ValidationReport
from pipeline.documents.validation import shown
from pipeline.errors import InvalidInput, NotFound, Unavailable
from pipeline.services.presenting import page_object, spec_object, validation_object
from pipeline.services.spec_adding import NewSpec, add_spec, build_new_spec, validate_new_spec
from pipeline.services.specs import list_specs

router = APIRouter(prefix="/v1/specs", tags=["specs"], route_class=JsonRoute)

_VALIDATION_TIMEOUT_S = 1800.0
"""Seconds after which a validation is given up."""

_one_at_a_time = asyncio.Lock()


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
async def add(context: Context, caller: CurrentCaller, body: SpecBody) -> Response:
    """Validate a spec and add it (201), or say that it was there (200). Takes some ten seconds.

    Validating happens in a process of its own: questions are answered meanwhile. One at a time, the next is told to
    come back.
    """
    if _one_at_a_time.locked():
        raise Unavailable("another spec is being validated", service="specs", retry_after_s=10.0)
    async with _one_at_a_time:
        contexts = context.settings.spec_validation_contexts

        def work() -> tuple[object, int]:
            added = add_spec(
                context.database,
                body.to_spec(),
                contexts=contexts,
                corpora=caller.corpora,
                validate=partial(_validate_elsewhere, contexts=contexts),
            )
            with context.database.read() as connection:
                (report,) = list_specs(connection, only=added.spec_id, corpora=caller.corpora)
            validation = None if added.report is None else validation_object(added.report)
            answer = {**spec_object(report), "created": added.created, "validation": validation}
            return answer, 201 if added.created else 200

        answer, status = await anyio.to_thread.run_sync(work, limiter=CapacityLimiter(1))
    return json_answer(answer, status=status)


def _validate_elsewhere(new: NewSpec, corpus_texts: Sequence[str], *, contexts: int) -> ValidationReport:
    """Validate in a process of its own; called in a thread."""
    return anyio.from_thread.run(_validate_in_process, new, corpus_texts, contexts)


async def _validate_in_process(new: NewSpec, corpus_texts: Sequence[str], contexts: int) -> ValidationReport:
    try:
        with anyio.fail_after(_VALIDATION_TIMEOUT_S):
            return await anyio.to_process.run_sync(_validate, new, corpus_texts, contexts, cancellable=True)
    except TimeoutError as error:
        raise InvalidInput(f"validating took over {_VALIDATION_TIMEOUT_S:g} s", item="tokenizer_json") from error


def _validate(new: NewSpec, corpus_texts: Sequence[str], contexts: int) -> ValidationReport:
    spec, _ = build_new_spec(new)
    return validate_new_spec(new, spec, contexts=contexts, corpus_texts=corpus_texts)
