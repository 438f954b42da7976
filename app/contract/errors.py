"""Every way a request can fail.

GatewayError
├── InvalidRequest        400   what the caller sent breaks a rule; one sentence or a list of them
├── SafetyBlocked         400   the vendor refused the prompt or every picture
├── Unauthorized          401
├── BudgetExhausted       402   the request can cost more than a budget has left
├── Forbidden             403   the API key does not allow it
├── NotFound              404   the caller has no such thing
│   └── RouteNotFound     404
├── RequestTimedOut       408   the body did not arrive in time
├── KeyInFlight           409   the same request is still under way
├── PayloadTooLarge       413
├── UnsupportedMedia      415
├── KeyReused             422   the Idempotency-Key belongs to another request
├── RateLimited           429
├── UpstreamFailed        500   the vendor failed, or refused the gateway's account; the reason is only logged
│   ├── ModelGone         ---   the vendor no longer has this model; services go on along the chain
│   └── BrokenPicture     500   a picture in the vendor's answer cannot be used
├── UpstreamUnavailable   503   the vendor is down for now
│   ├── Busy              503   the gateway is overloaded, it is too late for a call, or the database is down
│   └── StorageDown       503   pictures cannot be stored for now
├── UpstreamTimeout       504
└── CallerLeft            ---   the caller has left, so nothing more is sent

An error's message is public. The private reason travels as `__cause__` and is only logged.
Statuses and bodies are made in `api/errors.py`.
"""

from collections.abc import Sequence

from app.contract.answer import StoredImage
from app.contract.safety import Block


class GatewayError(Exception):
    """A failure that is reported to the caller. `message` is public.

    `vendor_code` is the vendor's error code, for the log. The vendor's text is not kept: it can hold project
    ids. `receipt` is the id of the receipt if something can be charged although there is no picture.
    """

    vendor_code: str | None = None
    receipt: str | None = None
    retry_after: int | None = None
    """Seconds until the request may be repeated."""
    hint: str | None = None
    """What would be right, if the message does not say it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(GatewayError):
    """The request breaks a rule. `sentences` is set when each broken rule has one (a list in the body).

    `hint` says what would be right, where the sentence itself cannot: older clients rely on its words.
    """

    def __init__(self, message: str | Sequence[str], *, hint: str | None = None) -> None:
        super().__init__(message if isinstance(message, str) else "; ".join(message))
        self.sentences = None if isinstance(message, str) else tuple(message)
        self.hint = hint


class SafetyBlocked(GatewayError):
    """No picture was made, because the vendor's filters said no (or made nothing without saying why)."""

    def __init__(self, block: Block) -> None:
        super().__init__(block.message)
        self.block = block


class Unauthorized(GatewayError):
    """No valid token or key. The response never says why."""


class Forbidden(GatewayError):
    """The API key does not allow this operation or model."""


class BudgetExhausted(GatewayError):
    """The price of the request's calls exceeds what is left of a budget. The message says of which."""


class KeyInFlight(GatewayError):
    """A request with the same Idempotency-Key is still under way."""

    retry_after: int

    def __init__(self, retry_after: int = 5) -> None:
        super().__init__("A request with this Idempotency-Key is still under way")
        self.retry_after = retry_after


class KeyReused(GatewayError):
    """The Idempotency-Key was used with a different request."""

    def __init__(self) -> None:
        super().__init__("Idempotency-Key was used with a different request")


class NotFound(GatewayError):
    """It does not exist, or it belongs to another caller. The response never says which."""


class RouteNotFound(NotFound):
    """No such path, or not with this method."""


class RequestTimedOut(GatewayError):
    """The body stopped arriving."""


class PayloadTooLarge(GatewayError):
    """The body is over its limit (`file` false), or one uploaded file is over the limit of a picture."""

    def __init__(self, message: str = "request entity too large", *, file: bool = False) -> None:
        super().__init__(message)
        self.file = file


class UnsupportedMedia(GatewayError):
    """A charset or content encoding that the gateway does not support."""


class RateLimited(GatewayError):
    """Too many requests: the caller's, or the gateway's at the vendor (`by_vendor`)."""

    retry_after: int

    def __init__(self, retry_after: int, *, by_vendor: bool = False) -> None:
        super().__init__("Too Many Requests")
        self.retry_after = retry_after
        self.by_vendor = by_vendor


class UpstreamFailed(GatewayError):
    """The vendor failed, refused the gateway's credentials, or returned something unreadable."""


class ModelGone(UpstreamFailed):
    """The vendor returns 404 for this model. Such a call costs nothing."""

    def __init__(self, model: str) -> None:
        super().__init__(f"{model} is not served any more")
        self.model = model


class BrokenPicture(UpstreamFailed):
    """A picture in the vendor's answer is cut off, damaged, or not a picture."""


class UpstreamUnavailable(GatewayError):
    """The vendor or the store is down for now. `retry_after` in seconds; every 503 has it."""

    retry_after: int

    def __init__(self, message: str = "", *, retry_after: int = 10) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(UpstreamUnavailable):
    """The gateway cannot take the request now: a queue is full, it is too late for a call, or the database
    does not answer."""

    def __init__(self, message: str = "", *, retry_after: int = 5) -> None:
        super().__init__(message, retry_after=retry_after)


class StorageDown(UpstreamUnavailable):
    """Pictures cannot be stored for now. `pending`: paid pictures whose URLs will work later."""

    def __init__(self, pending: tuple[StoredImage, ...] = (), *, retry_after: int = 10) -> None:
        super().__init__(retry_after=retry_after)
        self.pending = pending


class UpstreamTimeout(GatewayError):
    """The deadline passed. The call's outcome is unknown, and it can be charged: it is never repeated."""


class CallerLeft(GatewayError):
    """The caller left before the call was sent, so it is not sent. There is no response."""
