"""Generated answers as the JSON objects that callers see; pure, like `presenting`."""

from pipeline.generation import Engine, Piece
from pipeline.services.generating import Generated
from pipeline.services.presenting import JsonObject, retrieved_object


def generated_object(answer: Generated, *, return_token_ids: bool = False, include_text: bool = False) -> JsonObject:
    """Return the answer to one question.

    Args:
        answer: What the engine said, and about what.
        return_token_ids: Whether to add the ids of prompt and answer; the answer's are null where the engine does not
            say them.
        include_text: Whether to add the text of the context, or of the prompt where that was asked for.
    """
    found = retrieved_object(answer.retrieved, include_text=include_text)
    passages, metadata = found.pop("passages"), found.pop("metadata")
    del found["token_ids"]  # here that name is the answer's
    usage = answer.completion.usage
    presented: JsonObject = {
        "response": answer.completion.text,
        "context_tokens": answer.context_tokens,
        "query_tokens": answer.query_tokens,
        "cache_hit": answer.retrieved.cache_hit,
        "latency_ms": answer.latency_ms,
        "finish_reason": answer.completion.finish_reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        "passages": passages,
        "metadata": {**metadata, "timings_ms": _timings(metadata, answer), "engine": engine_object(answer.engine)},
        **found,
    }
    if usage.cached_tokens is not None:
        presented["usage"]["cached_tokens"] = usage.cached_tokens
    if return_token_ids:
        presented["prompt_token_ids"] = answer.prompt_token_ids
        presented["token_ids"] = answer.completion.token_ids
    return presented


def piece_object(piece: Piece) -> JsonObject:
    """Return the next part of a streamed answer."""
    return {"text": piece.text, "token_ids": piece.token_ids}


def engine_object(engine: Engine) -> JsonObject:
    """Return what answered; `estimated_with` names the encoding where `context_tokens` and the like are estimates."""
    presented: JsonObject = {"kind": engine.kind, "model": engine.model, "takes": engine.takes}
    return presented if engine.estimated_with is None else {**presented, "estimated_with": engine.estimated_with}


def _timings(metadata: JsonObject, answer: Generated) -> JsonObject:
    timings = {**metadata["timings_ms"], "generate": answer.generate_ms}
    return timings if answer.first_token_ms is None else {**timings, "first_token": answer.first_token_ms}
