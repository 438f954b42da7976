"""The closed list of X-Error-Code, which every error carries; `docs/errors.md` shows the same table."""

from typing import Literal, NamedTuple

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
    """With which statuses a code comes, what it means, and what the caller should do."""

    statuses: tuple[int, ...]
    meaning: str
    remedy: str


ERROR_CODES: dict[Code, ErrorCode] = {
    "validation": ErrorCode((400,), "The request breaks a rule.", "Correct it as `message` says."),
    "blocked": ErrorCode((400,), "The vendor's safety filter refused.", "Change the prompt or the picture."),
    "unauthorized": ErrorCode((401,), "There is no valid token.", "Log in again."),
    "budget_exhausted": ErrorCode((402, 429), "Your budget is spent.", "Wait until it resets, or raise it."),
    "forbidden": ErrorCode((403,), "Your key is not for this.", "Use a key that is."),
    "not_found": ErrorCode((404,), "There is no such address.", "Check path and method."),
    "key_in_flight": ErrorCode(
        (409,), "The same request is still running.", "Repeat it after `Retry-After`."
    ),
    "payload_too_large": ErrorCode((413,), "The body or a picture is too large.", "Send a smaller one."),
    "unsupported_media": ErrorCode((415,), "This encoding is not read.", "Send plain UTF-8."),
    "key_reused": ErrorCode((422,), "The Idempotency-Key belongs to another request.", "Use a new key."),
    "too_many_requests": ErrorCode((429,), "You send too many requests.", "Repeat it after `Retry-After`."),
    "vendor_quota": ErrorCode((429,), "The vendor's quota is used up.", "Repeat it after `Retry-After`."),
    "vendor_failed": ErrorCode(
        (500,), "The vendor failed.", "Try again later: the first try may have been charged."
    ),
    "internal": ErrorCode((500,), "The gateway failed.", "Tell the operator the `X-Request-Id`."),
    "vendor_unavailable": ErrorCode((503,), "The vendor is down for now.", "Repeat it after a while."),
    "busy": ErrorCode((503,), "The gateway has too much to do.", "Repeat it after `Retry-After`."),
    "storage_down": ErrorCode(
        (503,),
        "Pictures cannot be stored now.",
        "With `pending`: do not repeat it, its URLs will work soon. Without: repeat it after `Retry-After`.",
    ),
    "timeout": ErrorCode(
        (408, 504),
        "408: the request did not arrive in time. 504: the picture was not ready; it may be charged.",
        "408: repeat it. 504: ask for less, for example fewer pictures.",
    ),
}


def table() -> str:
    """Returns the list in Markdown."""
    rows = [
        f"| `{name}` | {', '.join(map(str, code.statuses))} | {code.meaning} | {code.remedy} |"
        for name, code in ERROR_CODES.items()
    ]
    return "\n".join(["| code | status | meaning | what to do |", "|---|---|---|---|", *rows])
