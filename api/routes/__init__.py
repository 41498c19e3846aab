"""Every address, by what it is about."""

from api.routes import corpora, documents, health, retrieval, runs, specs, stats

ROUTERS = (
    corpora.router,
    specs.router,
    documents.router,
    runs.router,
    retrieval.router,
    stats.router,
    health.router,
)
"""All routers, in the order in which they are matched."""

__all__ = ["ROUTERS"]
