"""Structured logs on stdout, as JSON or as text, also for events that libraries log."""

import json
import logging
import re
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, Processor

_COLOURS = {"debug": 2, "info": 32, "warning": 33, "error": 31, "critical": 31}
_DIM = 2
_MAX_CAUSES = 3
_MAX_CHARACTERS = 300
"""The longest value that a text line shows."""
_API_KEY = re.compile(r"igw_[0-9a-f]+")
_APP = Path(__file__).parent

_MAX_PLACES = 12


def causes(exc: BaseException | None) -> str:
    """Returns the classes of an exception and of its causes: `UpstreamUnavailable < ServiceUnavailable`.

    Messages are left out: they can contain a vendor's text, project ids or prompts.
    """
    names = []
    while exc is not None:
        names.append(type(exc).__name__)
        exc = exc.__cause__
    return " < ".join(names)


def places(exc: BaseException | None) -> list[str]:
    """Returns the last lines of the traceback, innermost last: `app/services/gen.py:94 make`."""
    frames = traceback.extract_tb(exc.__traceback__ if exc else None)
    return [_where(frame) for frame in frames[-_MAX_PLACES:]]


def configure(level: str, format: str = "auto") -> None:
    """Configure structlog and `logging`.

    `level`: debug, info, warning or error. `format`: json, text, or auto, which is text on a terminal and
    JSON otherwise. The gateway's own lines do not go through `logging`, which would take most of the time.
    """
    _output.stream = sys.stdout
    on_a_terminal = sys.stdout.isatty()
    text = format == "text" or (format == "auto" and on_a_terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
    ]
    render: list[Processor] = [
        structlog.processors.ExceptionRenderer(_places if text else _stacks),
        _Text(colours=on_a_terminal) if text else _json,
    ]
    # The list stays the same object: loggers keep it, and `structlog.testing.capture_logs` changes it.
    _processors[:] = [_AtLeast(level), *shared, *render]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=_Lines.of_module,
        cache_logger_on_first_use=True,
    )
    _configure_libraries(level, shared, render)


_processors: list[Processor] = []


def _configure_libraries(level: str, shared: list[Processor], render: list[Processor]) -> None:
    handler = _Handler()
    clean = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[clean, *render])
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.error").addFilter(_of_the_gateway)
    logging.getLogger("asyncio").addFilter(_first_line)
    logging.getLogger("uvicorn.access").disabled = True  # RequestLog writes a line for each request
    for name in ("alembic", "httpx", "httpx2"):  # the last two write a line for each rewrite by Claude
        logging.getLogger(name).setLevel(logging.WARNING)


class _AtLeast:
    """Drops events below a level."""

    def __init__(self, level: str) -> None:
        self._least = logging.getLevelNamesMapping()[level.upper()]

    def __call__(self, _logger: object, method: str, event: EventDict) -> EventDict:
        if structlog.processors.NAME_TO_LEVEL[method] < self._least:
            raise structlog.DropEvent
        return event


class _Lines:
    """The structlog logger of one module. Its methods write the rendered text."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def of_module(cls, *args: object) -> "_Lines":
        """Returns the logger for the module that has called `structlog.get_logger`."""
        return cls(_named(*args).name)

    def msg(self, line: str) -> None:
        _output.write(line)

    debug = info = warning = error = critical = exception = msg


_named = structlog.stdlib.LoggerFactory(ignore_frame_names=[__name__])


class _Handler(logging.Handler):
    """Writes the lines of libraries that use `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as in all handlers of `logging`
            self.handleError(record)
        else:
            _output.write(line)


class _Output:
    """Writes lines to the stdout that `configure` found. Ignores errors: a failing log fails no request."""

    stream = sys.stdout

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Write a line in UTF-8, also if stdout has another encoding: no character may cost a line.

        API keys are masked: callers can put them into a path or a field's name.
        """
        data = _API_KEY.sub("igw_…", line).encode("utf-8", "backslashreplace")
        with self._lock, suppress(OSError, ValueError):
            self.stream.buffer.write(data + b"\n")
            self.stream.flush()


_output = _Output()


def _json(_logger: object, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=repr).decode()
    except orjson.JSONEncodeError:  # a lone surrogate, or an integer over 64 bits
        return json.dumps(event, default=repr)


def _of_the_gateway(record: logging.LogRecord) -> bool:
    """Returns False for info lines of the emulator's uvicorn, which runs in a thread."""
    return record.levelno > logging.INFO or record.thread == threading.main_thread().ident


def _first_line(record: logging.LogRecord) -> bool:
    """Cut the record after its first line: what asyncio writes below can contain an exception's message."""
    record.msg, record.args = record.getMessage().partition("\n")[0], None
    return True


class _Text:
    """Renders an event as `time level event key=value`, followed by one short line per exception."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        time, level, what = event.pop("timestamp"), event.pop("level"), str(event.pop("event"))
        places = event.pop("exception", [])
        event.pop("logger", None)
        if what.startswith("Traceback"):  # uvicorn's, when the start fails
            what = what.strip().splitlines()[-1]
        request_id = {name: event.pop(name) for name in ("request_id",) if name in event}
        fields = [f"{name}={_shown(value)}" for name, value in event.items()]
        fields += [self._in(_DIM, f"{name}={_shown(value)}") for name, value in request_id.items()]
        head = f"{self._in(_DIM, time)} {self._in(_COLOURS[level], f'{level:7}')}"
        line = " ".join([head, what if what.isprintable() else repr(what), *fields])
        return "\n".join([line, *(f"         {place}" for place in places)])

    def _in(self, colour: int, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


def _shown(value: object) -> str:
    """Returns the value as one word or quoted, so that it cannot end the line or control the terminal."""
    text = str(value)
    if len(text) > _MAX_CHARACTERS:
        text = text[:_MAX_CHARACTERS] + "…"
    return text if text.isprintable() and text and not set(text) & set(" \"'=") else repr(text)


_frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def _stacks(exc_info: ExcInfo) -> list[dict[str, object]]:
    """Returns the exception and its causes with their frames, without messages and local variables."""
    kept = ("exc_type", "frames", "is_cause")
    return [{name: stack[name] for name in kept} for stack in _frames(exc_info)]


def _places(exc_info: ExcInfo) -> list[str]:
    """Returns the exception and its causes, each with the line that raised it.

    Messages are left out: they can quote prompts.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = exc_info[1]
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return [_place(cause) for cause in [causes[0], *causes[1:][1 - _MAX_CAUSES :]]]


def _place(error: BaseException) -> str:
    """Returns the error's type and its innermost line in this program, else in any library."""
    name = type(error).__qualname__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return name
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_APP)]
    return f"{name} in {_where((own or frames)[-1])}"


def _where(frame: traceback.FrameSummary) -> str:
    file = Path(frame.filename)
    is_own = file.is_relative_to(_APP)
    path = file.relative_to(_APP.parent) if is_own else "/".join(file.parts[-2:])
    return f"{path}:{frame.lineno} {frame.name}"
