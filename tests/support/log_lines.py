"""The gateway's log lines, as they are written."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def written_lines() -> Iterator[list[str]]:
    """Collects the lines that gateways of this process write. Enter it after the gateway has started."""
    lines: list[str] = []

    def collect(_logger: object, _method: str, line: str) -> str:
        lines.append(line)
        return line

    processors = structlog.get_config()["processors"]
    processors.append(collect)
    try:
        yield lines
    finally:
        processors.remove(collect)
