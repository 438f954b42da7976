"""Fetches and caches the public keys of an identity provider (JWKS, RFC 7517)."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson
import structlog
from jose import jwk
from jose.exceptions import JWKError

from app.logs import causes

log = structlog.get_logger()

ALGORITHMS: Final = ("RS256", "ES256")
MAX_BYTES = 256 * 1024
FETCH_SECONDS = 5.0
MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key and the only algorithm that it verifies. `key` is a python-jose key."""

    id: str | None
    algorithm: str
    key: Any


class Jwks:
    """The key set behind one URL.

    It is fetched again after `max_age_seconds`, and when a token names an unknown key. One fetch runs at a
    time. An unknown key causes no fetch within `cooldown_seconds` of the last, so that invented key ids cause
    few. While the provider is down, the last good set stays in use.
    """

    def __init__(self, url: str, *, max_age_seconds: float = 600, cooldown_seconds: float = 10) -> None:
        self._url = httpx.URL(url)
        self.max_age_seconds = max_age_seconds
        self.cooldown_seconds = cooldown_seconds
        self._client = httpx.AsyncClient(timeout=FETCH_SECONDS, headers={"Accept-Encoding": "identity"})
        self._keys: tuple[PublicKey, ...] = ()
        self._fetched_at = -float("inf")
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """Returns the key with this id and algorithm, or None.

        Without `key_id`, returns the only key with this algorithm, or None if there are several.
        """
        if algorithm not in ALGORITHMS:
            return None
        found = self._known(key_id, algorithm)
        age = time.monotonic() - self._fetched_at
        if self._fetch is None and age > (self.max_age_seconds if found else self.cooldown_seconds):
            self._fetched_at = time.monotonic()
            self._fetch = asyncio.create_task(self._refresh())
        if found is None and self._fetch:
            await asyncio.shield(self._fetch)  # other requests wait for the same fetch
            found = self._known(key_id, algorithm)
        return found

    async def ready(self) -> None:
        """Return if there are keys. Raises LookupError if none could be fetched yet."""
        if not self._keys:
            await self.find(None, ALGORITHMS[0])
        if not self._keys:
            raise LookupError("no keys could be fetched from the identity provider yet")

    async def aclose(self) -> None:
        if self._fetch:
            self._fetch.cancel()
        await self._client.aclose()

    def _known(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        fitting = [
            key for key in self._keys if key.algorithm == algorithm and (key_id is None or key.id == key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = tuple(_read(await self._download()))
            if not keys:
                raise ValueError("the key set has no usable key")
            self._keys = keys
        except (httpx.HTTPError, TimeoutError, ValueError) as exc:
            log.warning("key set not fetched, the last one stays", keys=len(self._keys), cause=causes(exc))
        finally:
            self._fetch = None

    async def _download(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url) as answer:
            answer.raise_for_status()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"the key set is larger than {MAX_BYTES} bytes")
        return bytes(body)


def _read(body: bytes) -> Iterator[PublicKey]:
    """Yields the usable keys of a JWKS document. Raises ValueError if it is not such a document."""
    document = orjson.loads(body)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the key set has no list of keys")
    for entry in entries:
        if isinstance(entry, dict) and (key := _public_key(entry)):
            yield key


def _public_key(entry: Mapping[str, Any]) -> PublicKey | None:
    """Returns a JWKS entry's key, or None if its type, curve, use, algorithm or length is not accepted."""
    match entry:
        case {"kty": "RSA", "n": str(n), "e": str(e)}:
            algorithm, public = "RS256", {"kty": "RSA", "n": n, "e": e}
        case {"kty": "EC", "crv": "P-256", "x": str(x), "y": str(y)}:
            algorithm, public = "ES256", {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        case _:
            return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        if "verify" not in entry.get("key_ops", ["verify"]):
            return None
        key = jwk.construct(public, algorithm)
    except (JWKError, ValueError, TypeError):
        return None
    if algorithm == "RS256" and key.prepared_key.key_size < MIN_RSA_BITS:
        return None
    id = entry.get("kid")
    return PublicKey(id if isinstance(id, str) else None, algorithm, key)
