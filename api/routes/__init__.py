"""Every address, by what it is about."""

from api.routes import (
    corpora,
    documents,
    generation,
    health,
    retrieval,
    runs,
    spec_enabling,
    spec_lifecycle,
    specs,
    stats,
)

ROUTERS = (
    corpora.router,
    specs.router,
    spec_lifecycle.router,
    spec_enabling.router,
    documents.router,
    runs.router,
    retrieval.router,
    generation.router,
    stats.router,
    health.router,
)
"""All routers, in the order in which they are matched."""

__all__ = ["ROUTERS"]
