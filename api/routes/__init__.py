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
    retrieval.router,
    generation.router,
    corpora.router,
    specs.router,
    spec_lifecycle.router,
    spec_enabling.router,
    documents.router,
    runs.router,
    stats.router,
    health.router,
)
"""All routers, in the order in which they are matched: questions first, they are asked most."""

__all__ = ["ROUTERS"]
