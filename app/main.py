"""Plugs everything together: `create_app(settings)`."""

import asyncio
import gc
import multiprocessing
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import logs
from app.api import auth as auth_routes
from app.api import docs, errors, health, image, models
from app.api.middleware import RequestLog
from app.contract.models import Catalogue, load_catalogue
from app.db import migrate, open_database
from app.providers.vertex.client import Vertex
from app.services.auth import Auth
from app.services.budget import Budget
from app.services.chain import Chain
from app.services.image import Images
from app.services.jwks import Jwks
from app.services.limits import RateLimit
from app.services.passwords import Passwords
from app.services.tokens import Tokens
from app.services.users import Users
from app.settings import Settings, read_settings
from app.storage.gcs import Gcs
from app.storage.spool import Spool

if TYPE_CHECKING:
    from app.emulator.server import Emulator

_UPLOADS = 16
_SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter. Python's 5 ms, times the uploads under way, is what the event
loop would wait for its turn."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The gateway as an ASGI app. Its parts are built when it starts and closed when it stops.

    Without `settings` they are read from the environment; when those are wrong, SystemExit says which.
    """
    settings = settings or read_settings()
    try:
        catalogue = load_catalogue(settings.models_file)
    except (OSError, ValueError) as exc:
        raise SystemExit(f"The configuration is wrong:\n  MODELS_FILE: {exc}") from None
    logs.configure(settings.log_level)
    app = FastAPI(
        title="Image Gateway",
        description="Pictures from Vertex AI and Amazon Bedrock, without cloud credentials in the app.",
        version="0.1.0",
        lifespan=partial(_lifespan, settings, catalogue),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False},
    )
    app.state.settings = settings
    app.state.catalogue = catalogue
    for routes in (auth_routes, image, models, health):
        app.include_router(routes.router)
    docs.install(app)
    errors.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in settings.cors_origins.split(",")],
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "X-Model-Requested", "Retry-After"],
        )
    app.add_middleware(RequestLog)
    return app


@asynccontextmanager
async def _lifespan(settings: Settings, catalogue: Catalogue, app: FastAPI) -> AsyncIterator[None]:
    sys.setswitchinterval(_SWITCH_SECONDS)
    async with AsyncExitStack() as stack:
        vertex_endpoint, storage_endpoint = settings.vertex_endpoint, settings.storage_emulator_host
        if settings.embeds_emulator:
            emulator = await _start_emulator(app, settings, catalogue, stack)
            vertex_endpoint = vertex_endpoint or emulator.vertex_endpoint
            storage_endpoint = storage_endpoint or emulator.http_url
        if settings.cloud == "emulator":
            await asyncio.to_thread(migrate, settings.database_url)
        auth = _build_auth(settings, stack)
        rate_limit = RateLimit(settings.rate_limit, name="images", redis_url=settings.redis_url)
        stack.push_async_callback(rate_limit.aclose)
        storage = Gcs(
            project=settings.google_cloud_project,
            bucket=settings.gcs_bucket,
            public_base_url=settings.public_url,
            endpoint=storage_endpoint,
            workers=_UPLOADS,
            timeout_seconds=settings.upload_seconds,
        )
        stack.push_async_callback(storage.aclose)
        spool = Spool(settings.spool_dir)
        draining = asyncio.create_task(spool.run(storage, settings.spool_seconds))
        stack.push_async_callback(_end, draining)
        vertex = Vertex(
            project=settings.google_cloud_project,
            location=settings.vertex_location,
            gemini_location=settings.vertex_gemini_location,
            endpoint=vertex_endpoint,
            credentials_file=settings.google_application_credentials,
            timeout_seconds=settings.request_timeout_seconds * 0.9,  # leaves time to store what is ready
            backoff_seconds=settings.retry_pause_seconds,
        )
        stack.push_async_callback(vertex.aclose)
        images = Images(
            provider=vertex,
            storage=storage,
            spool=spool,
            chain=Chain(catalogue, follow=settings.retired_models == "follow"),
            budget=Budget(settings.max_inflight_bytes, settings.max_queued_requests),
            catalogue=catalogue,
            bucket=settings.gcs_bucket,
            allowed_prefixes=settings.allowed_prefixes,
        )
        stack.push_async_callback(images.aclose)
        app.state.auth = auth
        app.state.rate_limit = rate_limit
        app.state.images = images
        app.state.parts = {"auth": auth, "limits": rate_limit, "vertex": vertex, "storage": storage}
        # The vendors' clients are two hundred thousand objects that stay: left out of every collection, which would
        # otherwise stop the loop for a tenth of a second.
        gc.collect()
        gc.freeze()
        if settings.cloud == "emulator" and multiprocessing.parent_process() is None:
            _greet(settings, auth.tokens)
        yield


def _build_auth(settings: Settings, stack: AsyncExitStack) -> Auth:
    jwks = Jwks(settings.jwks_url) if settings.jwks_url else None
    tokens = Tokens(
        secret=settings.signing_secret,
        algorithm=settings.jwt_algorithm,
        lifetime_seconds=settings.jwt_expires_seconds,
        jwks=jwks,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )
    auth = Auth(
        users=Users(open_database(settings.database_url)),
        passwords=Passwords(),
        tokens=tokens,
        login_limit=RateLimit(settings.login_rate_limit, name="login", redis_url=settings.redis_url),
    )
    stack.push_async_callback(auth.aclose)
    return auth


async def _start_emulator(
    app: FastAPI, settings: Settings, catalogue: Catalogue, stack: AsyncExitStack
) -> "Emulator":
    from app.emulator.server import Emulator  # costs memory that a live gateway need not spend

    emulator = Emulator(catalogue=catalogue, data_dir=settings.data_dir)
    await asyncio.to_thread(emulator.start)
    stack.push_async_callback(asyncio.to_thread, emulator.stop)
    app.mount("/storage", emulator.objects)
    return emulator


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _greet(settings: Settings, tokens: Tokens) -> None:
    """Say where things are, with a token and a command that work as they stand."""
    base = f"http://localhost:{settings.port}"
    token = tokens.mint("demo", "demo")
    sys.stdout.write(
        f"\nImage Gateway on its emulator: no cloud, no cost.\n\nDocs:   {base}/docs\nToken:  {token}\n\n"
        f"curl -s {base}/api/v1/image/text-to-image -H 'Content-Type: application/json' "
        f"-H 'Authorization: Bearer {token}' -d '{{\"prompt\": \"A lighthouse at dusk\"}}'\n\n"
    )
    sys.stdout.flush()


def __getattr__(name: str) -> FastAPI:
    """`app.main:app` for uvicorn. Made when asked for: to import this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    return create_app()
