"""Anthropic's Messages API on its platforms: Anthropic's own, Vertex's rawPredict, Bedrock's InvokeModel.

Written from the vendors' documentation. The emulated Claude does one thing with every prompt: it translates
some Vietnamese and appends words of quality. It does not follow instructions inside a prompt.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.contract.models import Catalogue, Model
from app.emulator.bodies import parse_object
from app.emulator.calls import Calls, Json
from app.emulator.exchange import exchange, ordered_response
from app.emulator.trouble import Trouble, Troubles
from app.emulator.vietnamese import translate

Platform = Literal["anthropic", "bedrock", "vertex"]

_VERSIONS = {
    "anthropic": ("2023-06-01", "2026-10-21"),
    "bedrock": ("bedrock-2023-05-31", "2026-10-21"),
    "vertex": ("vertex-2023-10-16", "2026-10-21"),
}
_CHARACTERS_PER_TOKEN = 4

# ── The wire ─────────────────────────────────────────────────────────────────────────────────────────


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Text(_Message):
    type: Literal["text"]
    text: str = Field(min_length=1)


Content = Annotated[str, Field(min_length=1)] | list[_Text]


class _Turn(_Message):
    role: Literal["user", "assistant"]
    content: Content


class _Create(_Message):
    """The body of a request.

    On Bedrock and Vertex the path names the model. On Anthropic's own API a header names the version.
    """

    model: str | None = None
    anthropic_version: str | None = None
    max_tokens: int = Field(ge=1)
    messages: list[_Turn] = Field(min_length=1)
    system: Content | None = None
    stop_sequences: list[str] | None = None
    metadata: Json | None = None
    thinking: Json | None = None


class _OldCreate(_Create):
    """The body in the versions of 2023, which also have sampling parameters."""

    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = None
    top_k: int | None = None


@dataclass(eq=False)
class _Refusal(Exception):
    """An error answer. `kind` is Anthropic's name of the error, `amazon` Bedrock's, `google` Vertex's.

    `retry_after` is in seconds. An empty `google` means that Vertex returns Anthropic's own body.
    """

    status: int
    kind: str
    amazon: str
    google: str
    message: str
    retry_after: float | None = None

    def response(self, platform: Platform) -> Response:
        headers = {} if self.retry_after is None else {"retry-after": f"{self.retry_after:g}"}
        if platform == "bedrock":
            headers["x-amzn-errortype"] = (
                f"{self.amazon}:http://internal.amazon.com/coral/com.amazon.bedrock/"
            )
            return JSONResponse({"message": self.message}, self.status, headers)
        if platform == "vertex" and self.google:
            error: Json = {"code": self.status, "message": self.message, "status": self.google}
            return JSONResponse({"error": error}, self.status, headers)
        error = {"type": self.kind, "message": self.message}
        body = {"type": "error", "error": error, "request_id": "req_emulated"}
        return JSONResponse(body, self.status, headers)


def _invalid(message: str) -> _Refusal:
    return _Refusal(400, "invalid_request_error", "ValidationException", "", message)


def _unknown(model: str) -> _Refusal:
    message = f"model: {model}"
    return _Refusal(404, "not_found_error", "ResourceNotFoundException", "NOT_FOUND", message)


def _unauthenticated(platform: Platform) -> _Refusal:
    name = "MissingAuthenticationTokenException"
    return _Refusal(
        403 if platform == "bedrock" else 401,
        "authentication_error",
        name,
        "UNAUTHENTICATED",
        "credentials are required",
    )


_FAILURES: dict[str, Callable[[float | None], _Refusal]] = {
    "429": partial(
        _Refusal, 429, "rate_limit_error", "ThrottlingException", "RESOURCE_EXHAUSTED", "Too many requests"
    ),
    "500": partial(
        _Refusal, 500, "api_error", "InternalServerException", "INTERNAL", "Internal server error"
    ),
    "503": partial(
        _Refusal, 529, "overloaded_error", "ServiceUnavailableException", "UNAVAILABLE", "Overloaded"
    ),
}

# ── The fronts ───────────────────────────────────────────────────────────────────────────────────────


def routes(*, calls: Calls, troubles: Troubles, catalogue: Catalogue) -> list[Route]:
    """POST /v1/messages and Vertex's …/publishers/anthropic/models/{model}:rawPredict.

    Bedrock's route is in `bedrock.front`, which calls `answer`.
    """

    async def messages(request: Request) -> Response:
        return await answer(request, None, "anthropic", calls, troubles, catalogue)

    async def raw_predict(request: Request) -> Response:
        return await answer(request, request.path_params["model"], "vertex", calls, troubles, catalogue)

    vertex = "/v1/projects/{project}/locations/{location}/publishers/anthropic/models/{model}:rawPredict"
    return [
        Route("/v1/messages", messages, methods=["POST"]),
        Route(vertex, raw_predict, methods=["POST"]),
    ]


async def answer(
    request: Request,
    model: str | None,
    platform: Platform,
    calls: Calls,
    troubles: Troubles,
    catalogue: Catalogue,
) -> Response:
    """Serves one call. `model` is the id in the path, or None if the body names it."""
    body = parse_object(await request.body())
    named = model or str(body.get("model"))
    row = _find(catalogue, named, platform)
    call = calls.record("claude", "messages", row.id if row else named, body)
    trouble = troubles.ask("claude", call.model, _words(body), request.headers.get("x-trouble"))
    work = partial(_work, request, body, platform, row, named, trouble)
    return await exchange(request, calls, call, trouble, work)


def _work(
    request: Request, body: Json, platform: Platform, row: Model | None, named: str, trouble: Trouble | None
) -> Response:
    if trouble and trouble.kind == "answer":
        return ordered_response(trouble)
    try:
        _authenticate(request, platform)
        if row is None or (trouble and trouble.kind == "retired"):
            raise _unknown(named)
        asked = _read(request, body, platform)
        if trouble and trouble.kind in _FAILURES:
            raise _FAILURES[trouble.kind](None if trouble.arg is None else float(trouble.arg))
    except _Refusal as refusal:
        return refusal.response(platform)
    return JSONResponse(_reply(asked, _words(body), row.id, trouble))


def _find(catalogue: Catalogue, named: str, platform: Platform) -> Model | None:
    for model in catalogue.model:
        ids = {"anthropic": model.id, "bedrock": model.bedrock_id, "vertex": model.vertex_id}
        if model.vendor == "anthropic" and ids[platform] == named:
            return model
    return None


def _authenticate(request: Request, platform: Platform) -> None:
    """Raises _Refusal without credentials. They are not verified: any key, token or signature will do."""
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    if scheme not in ("Bearer", "AWS4-HMAC-SHA256") and not request.headers.get("x-api-key"):
        raise _unauthenticated(platform)


def _read(request: Request, body: Json, platform: Platform) -> _Create:
    if platform == "anthropic":
        version = request.headers.get("anthropic-version")
    else:
        version = body.get("anthropic_version")
    if version not in _VERSIONS[platform]:
        raise _invalid(f"anthropic-version: {version} is not a valid version")
    try:
        return (_Create if version == "2026-10-21" else _OldCreate).model_validate(body)
    except ValidationError as exc:
        error = exc.errors()[0]
        raise _invalid(f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}") from exc


def _words(body: Json) -> str:
    """Returns the text of the last turn. Works on invalid bodies too."""
    match body.get("messages"):
        case [*_, {"content": str(text)}]:
            return text
        case [*_, {"content": [*blocks]}]:
            return " ".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))
        case _:
            return ""


# ── What the emulated Claude says ────────────────────────────────────────────────────────────────────


def _reply(asked: _Create, words: str, model: str, trouble: Trouble | None) -> Json:
    text, stop = rewrite(words), "end_turn"
    if len(text) > asked.max_tokens * _CHARACTERS_PER_TOKEN:
        text, stop = text[: asked.max_tokens * _CHARACTERS_PER_TOKEN], "max_tokens"
    details: Json | None = None
    match trouble.kind if trouble else None:
        case "blocked-prompt" | "text-only":
            text, stop = "", "refusal"
            details = {"type": "refusal", "category": "general_harms", "explanation": None}
        case "empty":
            text = ""
    return {
        "id": "msg_emulated",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": details,
        "usage": {
            "input_tokens": len(words) // _CHARACTERS_PER_TOKEN,
            "output_tokens": len(text) // _CHARACTERS_PER_TOKEN,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


_ELEMENT = re.compile(r"<(\w+)>(.*?)</\1>", re.DOTALL)
_QUALITY = "highly detailed, professional composition, soft natural light, 8k"


def rewrite(message: str) -> str:
    """Translates the prompt in a message and appends words of quality.

    The prompt is the longest part between tags (`<prompt>…</prompt>`), or the whole message without tags.
    """
    parts = [html.unescape(part[2]) for part in _ELEMENT.finditer(message)]
    prompt = max(parts, key=len) if parts else message
    return f"{translate(prompt).strip()}, {_QUALITY}"
