"""Whether a vendor can be reached, for the readiness check."""

import asyncio
from urllib.parse import urlsplit

_SECONDS = 5


async def reach(url: str) -> None:
    """Open a connection to the URL's host and close it. Sends nothing. Raises OSError or TimeoutError."""
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    async with asyncio.timeout(_SECONDS):
        _, writer = await asyncio.open_connection(address.hostname, port)
    writer.close()
