"""The application: routes behind guards, and what lives as long as it does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from api.admission import Admission
from api.dependencies import ApiContext, open_context
from api.errors import ErrorBoundary, install_error_handlers
from api.guards import BodyLimit, JsonOnly
from api.heads import HeadAsGet
from api.hosts import HostRules, is_loopback_address
from api.paths import RawPaths
from api.routes import ROUTERS
from pipeline.services.configuration import Access
from pipeline.settings import Settings
from pipeline.telemetry.logs import get_logger
from pipeline.version import __version__

_log = get_logger(__name__)

_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")


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
        version=__version__,
        description="Token ids of a retrieval corpus, computed before anyone asks.",
        lifespan=lifespan,
        redirect_slashes=False,  # `…/documents/a/` is another document than `…/documents/a`
    )
    install_error_handlers(app)
    bearer = Security(HTTPBearer(auto_error=False, description="An API key, where there are any."))
    for router in ROUTERS:
        app.include_router(router, dependencies=[bearer])  # says so in /openapi.json; `Admission` is who asks for it
    _guard(app, settings)
    return app


def _guard(app: FastAPI, settings: Settings) -> None:
    """Put guards before the routes. The last one added comes first.

    So: boundary, HEAD, pages, path, caller, media type, size.
    """

    def access() -> Access:
        context: ApiContext = app.state.context
        return context.read_path.configuration.access()

    app.add_middleware(BodyLimit, max_bytes=settings.max_request_bytes)
    app.add_middleware(JsonOnly)
    app.add_middleware(
        Admission,
        access=access,
        on_loopback=is_loopback_address(settings.api_host),
        rules=HostRules(settings.allowed_hosts, settings.allowed_origins),
    )
    app.add_middleware(RawPaths)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=_METHODS,
            allow_headers=("Authorization", "Content-Type", "Idempotency-Key"),
            expose_headers=("Retry-After", "WWW-Authenticate"),
        )
    app.add_middleware(HeadAsGet)
    app.add_middleware(ErrorBoundary)
