"""Structured logs: one JSON object a line on stdout, for our own lines and for everyone else's."""

import logging
import sys
import traceback

import structlog

_MAX_PLACES = 12


def causes(exc: BaseException | None) -> str:
    """The classes of an exception and of its causes: `UpstreamUnavailable < ServiceUnavailable`.

    No messages: they may hold a vendor's text, project ids, prompts.
    """
    names = []
    while exc is not None:
        names.append(type(exc).__name__)
        exc = exc.__cause__
    return " < ".join(names)


def places(exc: BaseException | None) -> list[str]:
    """Where an exception was raised, the innermost function last: `app/services/gen.py:94 make`."""
    frames = traceback.extract_tb(exc.__traceback__ if exc else None)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-_MAX_PLACES:]]


def configure(level: str) -> None:
    """`level`: debug, info, warning or error."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    # No local variables in tracebacks: pictures and prompts stay out of the log.
    exceptions = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    render: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.ExceptionRenderer(exceptions),
        structlog.processors.JSONRenderer(),
    ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=render))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # RequestLog writes a line for each request
    logging.getLogger("alembic").setLevel(logging.WARNING)
