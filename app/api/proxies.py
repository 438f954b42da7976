"""Accepts X-Forwarded-For only from the proxies in FORWARDED_ALLOW_IPS.

By default uvicorn accepts it from 127.0.0.1 and ::1 too. It reads FORWARDED_ALLOW_IPS and
--forwarded-allow-ips before it imports the application, so this module replaces its middleware class instead.
"""

from typing import TYPE_CHECKING

import uvicorn.config
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_UNNAMED = "127.0.0.1,::1"
"""uvicorn's default for `trusted_hosts`, if no proxy was named."""


def install(app: FastAPI, named: str) -> None:
    """Trust the proxies in `named` (FORWARDED_ALLOW_IPS: addresses and networks) and no others."""
    vars(uvicorn.config)["ProxyHeadersMiddleware"] = _named_only
    if named:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=named)


def _named_only(app: "ASGI3Application", trusted_hosts: list[str] | str) -> ProxyHeadersMiddleware:
    """Returns uvicorn's middleware, which trusts no proxy if none was named."""
    return ProxyHeadersMiddleware(app, [] if trusted_hosts == _UNNAMED else trusted_hosts)
