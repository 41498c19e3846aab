"""Which embedder the settings name: one recipe for workers and one for the read path, with the same identity."""

from functools import cache

from pipeline.errors import ConfigurationError
from pipeline.retrieval.bm25 import Bm25Terms
from pipeline.retrieval.embedding import HybridEmbedder, PassageEmbedder, QueryEmbedder, hybrid_name
from pipeline.retrieval.static_vectors import StaticVectors
from pipeline.settings import Settings


def open_passage_embedder(settings: Settings) -> PassageEmbedder:
    """Build the embedder of passages that the settings name.

    Raises:
        ConfigurationError: It needs a setting that is missing.
    """
    match settings.embedder:
        case "static-hybrid":
            return _static_hybrid()
        case "openai":
            # The client takes half a second to import, which every command would pay for.
            from pipeline.retrieval.openai_embeddings import OpenAIPassageEmbedder  # noqa: PLC0415  # see above

            return OpenAIPassageEmbedder(
                base_url=_embeddings_url(settings),
                api_key=_embeddings_key(settings),
                model=settings.embeddings_model,
                dimension=settings.embeddings_dimension,
                sparse=Bm25Terms(),
            )


def open_query_embedder(settings: Settings) -> QueryEmbedder:
    """Build the embedder of questions that the settings name.

    Raises:
        ConfigurationError: It needs a setting that is missing.
    """
    match settings.embedder:
        case "static-hybrid":
            return _static_hybrid()
        case "openai":
            from pipeline.retrieval.openai_embeddings import OpenAIQueryEmbedder  # noqa: PLC0415  # as above

            return OpenAIQueryEmbedder(
                base_url=_embeddings_url(settings),
                api_key=_embeddings_key(settings),
                model=settings.embeddings_model,
                dimension=settings.embeddings_dimension,
                sparse=Bm25Terms(),
            )


@cache
def _static_hybrid() -> HybridEmbedder:
    """Return the one of this process: it holds weights and nothing that is closed, and takes a while to load."""
    return HybridEmbedder(dense=StaticVectors.load(), sparse=Bm25Terms())


def embedder_name(settings: Settings) -> str:
    """Return the identity of the configured embedder."""
    if settings.embedder == "static-hybrid":
        return hybrid_name(StaticVectors.name, Bm25Terms.name)  # without loading the weights
    embedder = open_passage_embedder(settings)
    try:
        return embedder.name
    finally:
        embedder.close()


def _embeddings_url(settings: Settings) -> str:
    if settings.embeddings_url is None:
        raise ConfigurationError("FOREFILL_EMBEDDER=openai needs FOREFILL_EMBEDDINGS_URL")
    return str(settings.embeddings_url)


def _embeddings_key(settings: Settings) -> str | None:
    return None if settings.embeddings_api_key is None else settings.embeddings_api_key.get_secret_value()
