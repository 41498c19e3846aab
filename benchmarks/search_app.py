"""The API with one route more, which embeds a question and searches: all that Forefill adds is left out of it.

`python -m benchmarks.search_app` serves it as `python -m api` serves the product; guards, parsing and answering are
the product's own.
"""

import sys

from fastapi import FastAPI, Response

from api.app import create_app
from api.bodies import JsonRoute, json_answer
from api.dependencies import Context, CurrentCaller
from api.schemas import RetrieveBody
from api.serving import serve_app
from pipeline.context import drop_duplicates, drop_older_generations
from pipeline.retrieval.embedders import open_query_embedder
from pipeline.settings import Settings, load_settings
from pipeline.telemetry.logs import configure_logging

PATH = "/v1/search-only"


def create_search_app(settings: Settings) -> FastAPI:
    """Return the product's application with the route added."""
    app = create_app(settings)
    embedder = open_query_embedder(settings)

    async def search(context: Context, caller: CurrentCaller, body: RetrieveBody) -> Response:
        """Answer with the hits that `retrieve` would turn into ids."""
        caller.require_corpus(body.corpus)
        request = body.to_request(default_context_tokens=context.settings.max_context_tokens)
        view = await context.read_path.configuration.corpus(request.corpus)
        (embedding,) = await embedder.embed_queries([request.query])
        found = await context.read_path.searcher.search(view.collection, embedding, limit=2 * request.top_k)
        hits = drop_duplicates(drop_older_generations(found))[: request.top_k]
        described = [
            {
                "document_id": hit.document_id,
                "ordinal": hit.ordinal,
                "generation": hit.generation,
                "score": hit.score,
                "passage_key": hit.passage_key,
            }
            for hit in hits
        ]
        return json_answer({"passages": described})

    app.router.routes.append(JsonRoute(PATH, search, methods=["POST"]))
    return app


def main() -> int:
    """Serve until a signal; return the exit code."""
    settings = load_settings()
    configure_logging(settings.log_level)
    return serve_app(create_search_app(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
