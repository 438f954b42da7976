"""Types of settings with their checks: addresses, rate limits, budgets, origins and proxies."""

import re
from ipaddress import ip_network
from typing import Annotated

from limits import parse_many
from pydantic import AfterValidator

from app.contract.budgets import read_budget

_DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?")


def _with_async_driver(url: str) -> str:
    """Returns the URL of a database with the async driver that the gateway uses."""
    scheme, _, rest = url.partition("://")
    driver = _DRIVERS.get(scheme, scheme)
    if driver not in _DRIVERS.values():
        raise ValueError("must be sqlite:///file or postgresql://user:password@host/database")
    return f"{driver}://{rest}"


_ENDPOINT = re.compile(r"https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?")


def _with_scheme(endpoint: str) -> str:
    """Returns the endpoint as a URL; `host:port` means plain HTTP."""
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    if not _ENDPOINT.fullmatch(url.rstrip("/")):
        raise ValueError("must be http://host:port or https://host:port, without a path")
    return url.rstrip("/")


def _check_rate_limit(notation: str) -> str:
    if notation:
        parse_many(notation)
    return notation


def _check_budget(budget: str) -> str:
    read_budget(budget)
    return budget


def _check_origins(origins: str) -> str:
    """Checks a list of web origins. `*` alone is allowed.

    `*` is safe because tokens are read from a header, never from cookies: a page without a token can do no
    more than any other client.
    """
    for origin in split(origins):
        if origins.strip() != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin} is not an origin. Write scheme://host or scheme://host:port in lower case, "
                "without a path or a slash at the end, like https://app.example.com"
            )
    return origins


def _check_proxies(proxies: str) -> str:
    """Checks a list of addresses and networks. Refuses `*`: with it, callers could claim any address."""
    for proxy in split(proxies):
        try:
            named = ip_network(proxy).prefixlen > 0
        except ValueError:
            named = False
        if not named:
            raise ValueError(
                f"{proxy} is not the address of a proxy. Write addresses and networks, like "
                "10.0.0.7,10.1.0.0/24. Name your proxies only: a trusted address can claim any other "
                "address, and so avoid the login limits"
            )
    return proxies


def split(names: str) -> list[str]:
    """Returns the parts of a comma-separated list, without spaces and empty parts."""
    return [name.strip() for name in names.split(",") if name.strip()]


DatabaseUrl = Annotated[str, AfterValidator(_with_async_driver)]
Endpoint = Annotated[str, AfterValidator(_with_scheme)]
RateLimitText = Annotated[str, AfterValidator(_check_rate_limit)]
BudgetText = Annotated[str, AfterValidator(_check_budget)]
Origins = Annotated[str, AfterValidator(_check_origins)]
Proxies = Annotated[str, AfterValidator(_check_proxies)]
