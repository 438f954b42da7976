"""Believes X-Forwarded-For from proxies that the operator names, and from nobody else.

uvicorn believes every process of its own machine unless FORWARDED_ALLOW_IPS or --forwarded-allow-ips says
otherwise. It reads both before it imports the application, so what it does with them is changed instead.
"""

from typing import TYPE_CHECKING

import uvicorn.config
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_UNNAMED = "127.0.0.1,::1"
"""What uvicorn's Config says when nobody was named."""


def install(app: FastAPI, named: str) -> None:
    """`named`: FORWARDED_ALLOW_IPS, addresses and networks; "" is nobody. Also changes uvicorn's default."""
    vars(uvicorn.config)["ProxyHeadersMiddleware"] = _named_only
    if named:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=named)


def _named_only(app: "ASGI3Application", trusted_hosts: list[str] | str) -> ProxyHeadersMiddleware:
    """uvicorn's middleware, with another default: nobody."""
    return ProxyHeadersMiddleware(app, [] if trusted_hosts == _UNNAMED else trusted_hosts)
