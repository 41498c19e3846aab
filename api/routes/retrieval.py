"""The read path: questions in, exact token ids out. Nothing here waits for SQL."""

import asyncio

from fastapi import APIRouter, Response

from api.bodies import JsonRoute, json_answer
from api.dependencies import ApiContext, Context, CurrentCaller
from api.schemas import RetrieveBatchBody, RetrieveBody
from pipeline.errors import InvalidInput, NotFound, TooLarge
from pipeline.services.presenting import JsonObject, retrieved_object

router = APIRouter(prefix="/v1/retrieve", tags=["retrieval"], route_class=JsonRoute)


@router.post("")
async def retrieve(context: Context, caller: CurrentCaller, body: RetrieveBody) -> Response:
    """Answer one question with the token ids of its context."""
    caller.require_corpus(body.corpus)
    return json_answer(await _answer(context, body))


@router.post("/batch")
async def retrieve_batch(context: Context, caller: CurrentCaller, body: RetrieveBatchBody) -> Response:
    """Answer several questions, in their order: all or none."""
    limit = context.settings.max_batch_queries
    if len(body.queries) > limit:
        raise TooLarge(f"queries has {len(body.queries):,} entries, more than {limit:,}", item="queries")
    for query in body.queries:
        caller.require_corpus(query.corpus)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_answer_one_of(context, body, position)) for position in range(len(body.queries))
            ]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return json_answer({"results": [task.result() for task in tasks]})


async def _answer_one_of(context: ApiContext, body: RetrieveBatchBody, position: int) -> JsonObject:
    """Answer one question of several; what is wrong with it names it."""
    place = f"queries[{position}]"
    try:
        return await _answer(context, body.queries[position])
    except InvalidInput as error:
        raise type(error)(f"{place}: {error}", item=place) from error
    except NotFound as error:
        raise NotFound(f"{place}: {error}") from error


async def _answer(context: ApiContext, body: RetrieveBody) -> JsonObject:
    request = body.to_request(default_context_tokens=context.settings.max_context_tokens)
    answer = await context.read_path.retriever.retrieve(request)
    return retrieved_object(answer, include_text=body.include_text)
