"""Texts of settings that are checked: addresses, rate limits, budgets, origins and proxies."""

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


def _with_our_driver(url: str) -> str:
    """Returns the URL with the async driver that we ship, for a plain `postgresql://` or `sqlite://` URL."""
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


def _in_the_notation_of_limits(notation: str) -> str:
    if notation:
        parse_many(notation)
    return notation


def _is_a_budget(budget: str) -> str:
    read_budget(budget)
    return budget


def _are_origins(origins: str) -> str:
    """A single `*` is allowed. It is safe: tokens are read from a header that a page must set, never from
    cookies, so a page can do no more than any other client without a token."""
    for origin in split(origins):
        if origins.strip() != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin} is not an origin. Write scheme://host or scheme://host:port in lower case, "
                "without a path or a slash at the end, like https://app.example.com"
            )
    return origins


def _name_proxies(proxies: str) -> str:
    """Refuses `*`, which uvicorn accepts: any caller could then claim any address."""
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
    """Returns the parts of a list with commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


DatabaseUrl = Annotated[str, AfterValidator(_with_our_driver)]
Endpoint = Annotated[str, AfterValidator(_with_scheme)]
RateLimitText = Annotated[str, AfterValidator(_in_the_notation_of_limits)]
BudgetText = Annotated[str, AfterValidator(_is_a_budget)]
Origins = Annotated[str, AfterValidator(_are_origins)]
Proxies = Annotated[str, AfterValidator(_name_proxies)]
