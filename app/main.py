"""The gateway as an ASGI app: `create_app(settings)`."""

import asyncio
import multiprocessing
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
from starlette.middleware.cors import CORSMiddleware

from app import __version__, logs, process
from app.api import auth as auth_routes
from app.api import (
    connections,
    docs,
    errors,
    gen,
    health,
    image,
    models,
    proxies,
    receipts,
    rehearsal,
    signals,
)
from app.api.exchange import Gateway
from app.api.middleware import RequestLog
from app.environment import read_settings
from app.parts import build
from app.plan import Plan, plan
from app.services.demo import greeting
from app.settings import Settings

log = structlog.get_logger()

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
"""Response headers that scripts in browsers can read."""


def create_app(settings: Settings | None = None, *, clock: Callable[[], int] | None = None) -> Gateway:
    """Returns the gateway as an ASGI app. Its parts are built when it starts and closed when it stops.

    Without `settings`, reads the environment. Raises SystemExit with a line for each wrong setting. `clock`:
    as in `parts.build`.
    """
    settings = settings or read_settings()
    planned = plan(settings)
    logs.configure(settings.log_level, settings.log_format)
    app = Gateway(
        title="Image Gateway",
        version=__version__,
        lifespan=partial(_lifespan, planned, clock),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False},
    )
    for routes in (auth_routes, image, gen, receipts, models, health):
        app.include_router(routes.router)
    docs.install(app)
    errors.install(app)
    if settings.cloud == "emulator":
        rehearsal.describe(app)
    app.add_middleware(RequestLog)
    if settings.allowed_origins:  # outside RequestLog, so that browsers can read its 500 too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id", "X-Trouble"],
            expose_headers=_EXPOSED,
        )
    proxies.install(app, settings.forwarded_allow_ips)
    return app


@asynccontextmanager
async def _lifespan(
    planned: Plan, clock: Callable[[], int] | None, app: Gateway
) -> AsyncIterator[dict[str, float]]:
    """Run the gateway's parts. Yields the ASGI state, which `connections` reads."""
    async with build(planned, clock=clock) as built:
        app.parts = built
        if built.emulator:
            app.mount("/storage", built.emulator.objects)
        signals.watch(built)
        watching = asyncio.create_task(_warn_if_open()) if built.demo else None
        if built.demo and multiprocessing.parent_process() is None:
            base = f"http://localhost:{built.settings.port}"
            sys.stdout.write(greeting(built.demo, built.auth.tokens, base))
            sys.stdout.flush()
        yield {"answer_idle_seconds": built.settings.answer_idle_seconds}
        if watching:
            watching.cancel()


async def _warn_if_open() -> None:
    """Warn if other machines can reach the emulator. Tries again, because uvicorn listens after the start."""
    for attempt in range(8):
        await asyncio.sleep(0.1 * 2**attempt)
        if addresses := process.open_to_others():
            log.warning(
                "CLOUD=emulator can be reached from other machines: listen on 127.0.0.1, or protect the port",
                addresses=addresses,
            )
            return


def __getattr__(name: str) -> Gateway:
    """Makes `app.main:app` for uvicorn when it is first read, so that imports do not read the environment."""
    if name != "app":
        raise AttributeError(name)
    return create_app()
