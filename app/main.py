"""Plugs everything together: `create_app(settings)`."""

import asyncio
import math
import multiprocessing
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import logs, process
from app.api import auth as auth_routes
from app.api import connections, docs, errors, gen, health, image, models, proxies, rehearsal
from app.api.middleware import RequestLog
from app.contract.models import Catalogue, load_catalogue
from app.db import migrate, open_database
from app.providers.bedrock.client import Bedrock
from app.providers.claude import Claude
from app.services.auth import Auth
from app.services.budget import Budget
from app.services.chain import Chain
from app.services.demo import DEMO_ID, demo_user, greeting
from app.services.gallery import Gallery
from app.services.gen import Gen
from app.services.image import Images
from app.services.jwks import Jwks
from app.services.limits import RateLimit
from app.services.passwords import Passwords
from app.services.room import Room
from app.services.tokens import Tokens
from app.services.users import Users
from app.settings import Settings, read_settings
from app.storage.spool import Spool

if TYPE_CHECKING:
    from app.providers.vertex.client import Vertex
    from app.providers.vertex.credentials import Credentials
    from app.storage.gcs import Gcs

log = structlog.get_logger()

_UPLOADS = 16
_BEDROCK_CALLS = 64
"""Requests of /gen that are worked on at once: each holds a thread, and up to 5 MB."""
_REWRITES = 64
"""Prompts that Claude rewrites at the same time."""
_REWRITE_SHARE = 1 / 6
"""Of a request's time, at most: 20 of the 120 seconds."""
_EMULATED_KEY = "emulated"
"""So that real credentials, where there are any, are not even looked for."""
_BODIES, _BODIES_OF_ONE_USER = 8, 4
"""How many times MAX_INFLIGHT_BYTES all request bodies under way may hold, and those of one user."""

connections.install()

_EXPOSED = [
    "Idempotency-Replayed",
    "Location",
    "Retry-After",
    "X-Cost-USD",
    "X-Error-Code",
    "X-Error-Hint",
    "X-Model-Requested",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Receipt-Id",
    "X-Request-Id",
]
"""Headers that scripts in browsers may read."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The gateway as an ASGI app. Its parts are built when it starts and closed when it stops.

    Without `settings` they are read from the environment; when those are wrong, SystemExit says which.
    """
    settings = settings or read_settings()
    try:
        catalogue = load_catalogue(settings.models_file)
    except (OSError, ValueError) as exc:
        raise SystemExit(f"The configuration is wrong:\n  MODELS_FILE: {exc}") from None
    credentials = _google_credentials(settings)
    logs.configure(settings.log_level, settings.log_format)
    app = FastAPI(
        title="Image Gateway",
        version="0.1.0",
        lifespan=partial(_lifespan, settings, catalogue, credentials),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False},
    )
    app.state.settings = settings
    app.state.catalogue = catalogue
    for routes in (auth_routes, image, gen, models, health):
        app.include_router(routes.router)
    docs.install(app)
    errors.install(app)
    if settings.cloud == "emulator":
        rehearsal.describe(app)
    app.add_middleware(RequestLog)
    if settings.allowed_origins:  # outside RequestLog, so that browsers may read its 500 too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id", "X-Trouble"],
            expose_headers=_EXPOSED,
        )
    proxies.install(app, settings.forwarded_allow_ips)
    return app


@asynccontextmanager
async def _lifespan(
    settings: Settings, catalogue: Catalogue, credentials: "Credentials | None", app: FastAPI
) -> AsyncIterator[dict[str, float]]:
    """Yields what `connections` wants to know."""
    process.tune()
    async with AsyncExitStack() as stack:
        if settings.embeds_emulator:
            settings = await _start_emulator(app, settings, catalogue, stack)
        if settings.cloud == "emulator":
            await asyncio.to_thread(migrate, settings.database_url)
        auth = _build_auth(settings, stack)
        limit = RateLimit(settings.rate_limit, name="images", redis_url=settings.redis_url)
        stack.push_async_callback(limit.aclose)
        storage, spool = _build_storage(settings, credentials, stack)
        vertex = _build_vertex(settings, credentials, stack)
        bedrock = _build_bedrock(settings, catalogue, stack)
        claude = _build_claude(settings, stack)
        gallery = Gallery(
            storage,
            spool,
            settings.gcs_bucket,
            wait_seconds=settings.upload_wait_seconds,
            retry_after=math.ceil(settings.spool_seconds),
        )
        stack.push_async_callback(gallery.aclose)
        chain = Chain(catalogue, follow=settings.retired_models == "follow")
        waiting = settings.max_queued_requests
        app.state.auth = auth
        app.state.rate_limit = limit
        inflight = settings.max_inflight_bytes
        app.state.bodies = Room(_BODIES * inflight, _BODIES_OF_ONE_USER * inflight)
        app.state.images = Images(
            provider=vertex,
            gallery=gallery,
            chain=chain,
            budget=Budget(inflight, waiting),
            catalogue=catalogue,
            allowed_prefixes=settings.allowed_prefixes,
        )
        app.state.gen = Gen(
            provider=bedrock,
            rewriter=claude,
            gallery=gallery,
            chain=chain,
            rewrite_chain=Chain(catalogue),
            budget=Budget(_BEDROCK_CALLS, waiting),
            rewrites=Budget(_REWRITES, waiting),
            catalogue=catalogue,
            rewrite_seconds=settings.request_timeout_seconds * _REWRITE_SHARE,
        )
        app.state.parts = {
            "auth": auth,
            "limits": limit,
            "storage": storage,
            "spool": spool,
            "vertex": vertex,
            "bedrock": bedrock,
            "claude": claude,
        }
        process.freeze()
        stack.push_async_callback(_end, asyncio.create_task(_freeze_when_connected(claude)))
        if settings.cloud == "emulator":
            stack.push_async_callback(_end, asyncio.create_task(_warn_if_open()))
            demo = await demo_user(auth.users, auth.passwords, settings.data_dir)
            if demo.user and demo.password and settings.has_example_secret:
                # Anybody can make a token under the example secret: the documentation may tell a login.
                app.state.open_login = {"username": demo.user.username, "password": demo.password}
            if multiprocessing.parent_process() is None:
                sys.stdout.write(greeting(demo, auth.tokens, f"http://localhost:{settings.port}"))
                sys.stdout.flush()
        yield {"answer_idle_seconds": settings.answer_idle_seconds}


async def _start_emulator(
    app: FastAPI, settings: Settings, catalogue: Catalogue, stack: AsyncExitStack
) -> Settings:
    """Start it, and return the settings that name it wherever they named nobody."""
    from app.emulator.server import Emulator  # costs memory that a live gateway need not spend

    emulator = Emulator(catalogue=catalogue, data_dir=settings.data_dir)
    await asyncio.to_thread(emulator.start)
    stack.push_async_callback(asyncio.to_thread, emulator.stop)
    app.mount("/storage", emulator.objects)
    addresses = {
        "vertex_endpoint": emulator.vertex_endpoint,
        "storage_emulator_host": emulator.http_url,
        "aws_endpoint_url_bedrock_runtime": emulator.http_url,
        "anthropic_base_url": emulator.http_url,
    }
    named = {name: getattr(settings, name) or address for name, address in addresses.items()}
    return settings.model_copy(update=named)


def _build_auth(settings: Settings, stack: AsyncExitStack) -> Auth:
    jwks = Jwks(settings.jwks_url) if settings.jwks_url else None
    tokens = Tokens(
        secret=settings.signing_secret,
        algorithm=settings.jwt_algorithm,
        lifetime_seconds=settings.jwt_expires_seconds,
        jwks=jwks,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        emulated=settings.cloud == "emulator",
    )
    url = settings.redis_url
    auth = Auth(
        users=Users(
            open_database(settings.database_url), without=DEMO_ID if settings.cloud == "live" else None
        ),
        passwords=Passwords(),
        tokens=tokens,
        login_limit=RateLimit(settings.login_rate_limit, name="login", redis_url=url),
        account_limit=RateLimit(settings.login_account_rate_limit, name="login-account", redis_url=url),
        address_limit=RateLimit(settings.login_address_rate_limit, name="login-address", redis_url=url),
    )
    stack.push_async_callback(auth.aclose)
    return auth


def _google_credentials(settings: Settings) -> "Credentials | None":
    """Returns None if Google itself is not called. Raises SystemExit with one sentence if credentials are
    missing."""
    if settings.cloud == "emulator" or (settings.vertex_endpoint and settings.storage_emulator_host):
        return None
    from app.providers.vertex.credentials import NoCredentials, find  # only a live gateway needs it

    try:
        return find(settings.google_application_credentials)
    except NoCredentials as exc:
        raise SystemExit(f"The configuration is wrong:\n  {exc}") from None


def _build_storage(
    settings: Settings, credentials: "Credentials | None", stack: AsyncExitStack
) -> "tuple[Gcs, Spool]":
    from app.storage.gcs import Gcs  # takes a while: not before collecting is off

    storage = Gcs(
        project=settings.google_cloud_project,
        bucket=settings.gcs_bucket,
        public_base_url=settings.public_url,
        endpoint=settings.storage_emulator_host,
        workers=_UPLOADS,
        timeout_seconds=settings.upload_seconds,
        credentials=credentials,
    )
    stack.push_async_callback(storage.aclose)
    spool = Spool(settings.spool_dir, min_free_bytes=settings.spool_min_free_bytes)
    draining = asyncio.create_task(spool.run(storage, settings.spool_seconds))
    stack.push_async_callback(_end, draining)
    return storage, spool


def _build_vertex(settings: Settings, credentials: "Credentials | None", stack: AsyncExitStack) -> "Vertex":
    from app.providers.vertex.client import Vertex  # likewise

    vertex = Vertex(
        project=settings.google_cloud_project,
        location=settings.vertex_location,
        gemini_location=settings.vertex_gemini_location,
        endpoint=settings.vertex_endpoint,
        credentials=credentials,
        timeout_seconds=settings.request_timeout_seconds,
        backoff_seconds=settings.retry_pause_seconds,
    )
    stack.push_async_callback(vertex.aclose)
    return vertex


def _build_bedrock(settings: Settings, catalogue: Catalogue, stack: AsyncExitStack) -> Bedrock:
    emulated = _EMULATED_KEY if settings.cloud == "emulator" else None
    bedrock = Bedrock(
        regions={model.location for model in catalogue.model if model.vendor == "aws"},
        timeout_seconds=settings.request_timeout_seconds * 0.9,
        max_calls=_BEDROCK_CALLS,
        endpoint_url=settings.aws_endpoint_url_bedrock_runtime,
        access_key_id=emulated,
        secret_access_key=emulated,
    )
    stack.push_async_callback(bedrock.aclose)
    return bedrock


def _build_claude(settings: Settings, stack: AsyncExitStack) -> Claude:
    api_key: str | None = None  # by Bedrock and by Vertex AI the SDK finds credentials itself
    if settings.cloud == "emulator":
        api_key = _EMULATED_KEY
    elif settings.claude_via == "anthropic" and settings.anthropic_api_key:
        api_key = settings.anthropic_api_key.get_secret_value()
    claude = Claude(
        via=settings.claude_via,
        api_key=api_key,
        base_url=settings.anthropic_base_url,
        aws_region=settings.aws_region,
        google_project=settings.google_cloud_project,
        google_location=settings.cloud_ml_region,
        bedrock_version=settings.claude_bedrock_version,
    )
    stack.push_async_callback(claude.aclose)
    return claude


async def _freeze_when_connected(claude: Claude) -> None:
    await claude.connected()
    process.freeze()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def _warn_if_open() -> None:
    """Warn if other machines can reach the emulator. uvicorn begins to listen a moment after the start."""
    for attempt in range(8):
        await asyncio.sleep(0.1 * 2**attempt)
        if addresses := process.open_to_others():
            log.warning(
                "CLOUD=emulator can be reached from other machines: listen on 127.0.0.1, or protect the port",
                addresses=addresses,
            )
            return


def __getattr__(name: str) -> FastAPI:
    """`app.main:app` for uvicorn. Made when asked for: to import this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    return create_app()
