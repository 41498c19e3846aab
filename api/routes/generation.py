"""Questions in, an engine's answers out: whole, or piece by piece as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from api.bodies import JsonRoute, json_answer
from api.dependencies import Context, CurrentCaller
from api.errors import problem_of
from api.schemas import GenerateBody
from api.streaming import CALLER_LEFT, EventStream, event, while_connected
from pipeline.errors import ForefillError
from pipeline.services.generating import Generated, Part
from pipeline.services.presenting import JsonObject, json_line
from pipeline.services.presenting_generation import generated_object, piece_object

router = APIRouter(prefix="/v1/generate", tags=["generation"], route_class=JsonRoute)


@router.post("")
async def generate(context: Context, caller: CurrentCaller, request: Request, body: GenerateBody) -> Response:
    """Answer one question; with `stream`, as events `token`, then `done` or `error`.

    What is wrong before the first piece is an ordinary problem. A caller who leaves ends the engine's work.
    """
    caller.require_corpus(body.corpus)
    asked = body.to_generate_request(default_context_tokens=context.settings.max_context_tokens)
    try:
        if not body.stream:
            answer = await while_connected(request, context.generation.generate(asked))
            return json_answer(_presented(answer, body))
        parts = context.generation.stream(asked)
        first = await while_connected(request, _first(parts))
    except ClientDisconnect:
        return Response(status_code=CALLER_LEFT)
    return EventStream(_events(first, parts, body))


async def _first(parts: AsyncGenerator[Part]) -> Part:
    return await anext(parts)


async def _events(first: Part, rest: AsyncGenerator[Part], body: GenerateBody) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        yield _event(first, body)
        try:
            async for part in rest:
                yield _event(part, body)
        except ForefillError as error:
            yield event("error", bytes(problem_of(error).body))


def _event(part: Part, body: GenerateBody) -> bytes:
    if isinstance(part, Generated):
        return event("done", json_line(_presented(part, body)))
    return event("token", json_line(piece_object(part)))


def _presented(answer: Generated, body: GenerateBody) -> JsonObject:
    return generated_object(answer, return_token_ids=body.return_token_ids, include_text=body.include_text)
