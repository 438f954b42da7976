"""The status and the X-Error-Code of every error. `docs/errors.md` shows the same list of codes."""

from typing import Literal, NamedTuple

from app.contract import errors

Code = Literal[
    "validation",
    "unauthorized",
    "forbidden",
    "not_found",
    "payload_too_large",
    "unsupported_media",
    "too_many_requests",
    "budget_exhausted",
    "key_reused",
    "key_in_flight",
    "blocked",
    "vendor_quota",
    "vendor_failed",
    "vendor_unavailable",
    "timeout",
    "busy",
    "storage_down",
    "internal",
]


class ErrorCode(NamedTuple):
    """The statuses of a code, its meaning, and what the caller should do. Callers read both texts."""

    statuses: tuple[int, ...]
    meaning: str
    remedy: str


ERROR_CODES: dict[Code, ErrorCode] = {
    "validation": ErrorCode((400,), "The request breaks a rule.", "Correct what `message` names."),
    "blocked": ErrorCode(
        (400,),
        "The vendor's safety filter refused the prompt or the pictures.",
        "Change the prompt or the picture.",
    ),
    "unauthorized": ErrorCode((401,), "The token, API key or login is missing or wrong.", "Log in again."),
    "budget_exhausted": ErrorCode(
        (402, 429), "Your budget is spent.", "Wait until it resets, or ask the operator to raise it."
    ),
    "forbidden": ErrorCode((403,), "Your API key does not allow this.", "Use a key that does."),
    "not_found": ErrorCode(
        (404,), "There is no such path, method or receipt.", "Check the path, the method and the id."
    ),
    "key_in_flight": ErrorCode(
        (409,), "The same request is still running.", "Repeat it after `Retry-After`."
    ),
    "payload_too_large": ErrorCode(
        (413, 431),
        "413: the body or a picture is too large. 431: the headers are too large.",
        "Send less.",
    ),
    "unsupported_media": ErrorCode(
        (415,), "The body's encoding is not supported.", "Send uncompressed UTF-8."
    ),
    "key_reused": ErrorCode((422,), "The Idempotency-Key belongs to another request.", "Use a new key."),
    "too_many_requests": ErrorCode((429,), "You send too many requests.", "Repeat it after `Retry-After`."),
    "vendor_quota": ErrorCode((429,), "The vendor's quota is used up.", "Repeat it after `Retry-After`."),
    "vendor_failed": ErrorCode(
        (500,), "The vendor failed.", "Try again later. The failed call may be charged."
    ),
    "internal": ErrorCode((500,), "The gateway failed.", "Give the operator the `X-Request-Id`."),
    "vendor_unavailable": ErrorCode(
        (503,), "The vendor is unavailable for now.", "Repeat it after `Retry-After`."
    ),
    "busy": ErrorCode(
        (503,), "The gateway is overloaded, or its database is down.", "Repeat it after `Retry-After`."
    ),
    "storage_down": ErrorCode(
        (503,),
        "Pictures cannot be stored now.",
        "With `pending`: do not repeat it; the URLs will work later. Without: repeat it after `Retry-After`.",
    ),
    "timeout": ErrorCode(
        (408, 504),
        "408: the request did not arrive in time. 504: the picture was not ready in time; it may be charged.",
        "408: repeat it. 504: ask for less, for example fewer pictures.",
    ),
}


_STATUS: dict[type[errors.GatewayError], tuple[int, Code]] = {
    errors.InvalidRequest: (400, "validation"),
    errors.SafetyBlocked: (400, "blocked"),
    errors.Unauthorized: (401, "unauthorized"),
    errors.BudgetExhausted: (402, "budget_exhausted"),
    errors.Forbidden: (403, "forbidden"),
    errors.NotFound: (404, "not_found"),
    errors.RequestTimedOut: (408, "timeout"),
    errors.KeyInFlight: (409, "key_in_flight"),
    errors.PayloadTooLarge: (413, "payload_too_large"),
    errors.UnsupportedMedia: (415, "unsupported_media"),
    errors.KeyReused: (422, "key_reused"),
    errors.RateLimited: (429, "too_many_requests"),
    errors.UpstreamFailed: (500, "vendor_failed"),
    errors.UpstreamUnavailable: (503, "vendor_unavailable"),
    errors.Busy: (503, "busy"),
    errors.StorageDown: (503, "storage_down"),
    errors.UpstreamTimeout: (504, "timeout"),
}


class Crashed(errors.UpstreamFailed):
    """An unexpected exception. The caller gets the same body as for any other 500."""


def status(error: errors.GatewayError) -> int:
    return status_and_code(error)[0]


def status_and_code(error: errors.GatewayError) -> tuple[int, Code]:
    if isinstance(error, errors.RateLimited) and error.by_vendor:
        return 429, "vendor_quota"
    if isinstance(error, Crashed):
        return 500, "internal"
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def table() -> str:
    """Returns the list of codes in Markdown."""
    rows = [
        f"| `{name}` | {', '.join(map(str, code.statuses))} | {code.meaning} | {code.remedy} |"
        for name, code in ERROR_CODES.items()
    ]
    return "\n".join(["| code | status | meaning | what to do |", "|---|---|---|---|", *rows])
