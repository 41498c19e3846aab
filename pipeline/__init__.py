"""Forefill's library: everything that does not need Celery or a web framework.

Packages import only packages to their left (`tests/test_architecture.py` enforces it):
version, errors, ending, loading, json_input, settings, telemetry, listening, bounded_http, bounded_redis, database,
framing, tokenizers, documents, token_cache, jobs, retrieval, context, generation, services, factory, cli.
"""

TYPE_CHECKING = False  # typing's own costs a command its first milliseconds, in which Ctrl-C shows a traceback
if TYPE_CHECKING:
    from pipeline.services.answering import TokenCachedRAG
    from pipeline.version import __version__

__all__ = ["TokenCachedRAG", "__version__"]


def __getattr__(name: str) -> object:
    """Import the public class when it is asked for: a worker or a command should not pay for the read path."""
    if name == "TokenCachedRAG":
        from pipeline.services.answering import TokenCachedRAG  # noqa: PLC0415  # see above

        return TokenCachedRAG
    if name == "__version__":
        from pipeline.version import __version__  # noqa: PLC0415  # see above

        return __version__
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
