"""The application: routes behind guards, and what lives as long as it does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api.dependencies import open_context
from api.errors import ErrorBoundary, install_error_handlers
from api.guards import BodyLimit, JsonOnly, LoopbackOnly
from api.paths import RawPaths
from api.routes import ROUTERS
from pipeline.settings import Settings
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Build the application; nothing is connected before it starts.

    Args:
        settings: Of this process.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_context(settings) as context:
            app.state.context = context
            _log.info("api.started")
            yield
        _log.info("api.stopped")

    app = FastAPIOffline(  # `/docs` without scripts of other hosts
        redoc_url=None,
        title="Forefill",
        version="1",
        description="Token ids of a retrieval corpus, computed before anyone asks.",
        lifespan=lifespan,
        redirect_slashes=False,  # `…/documents/a/` is another document than `…/documents/a`
    )
    install_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    # The last one added comes first: boundary, host, media type, size, path.
    app.add_middleware(RawPaths)
    app.add_middleware(BodyLimit, max_bytes=settings.max_request_bytes)
    app.add_middleware(JsonOnly)
    app.add_middleware(LoopbackOnly)
    app.add_middleware(ErrorBoundary)
    return app
