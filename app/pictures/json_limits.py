"""The limits of a JSON text with pictures in it, and the errors for a text that is refused."""

from dataclasses import dataclass


class MalformedJson(ValueError):
    """The bytes are not JSON. The message is for the caller, and does not quote the text."""


class JsonTooLarge(ValueError):
    """A limit is exceeded. The message says which one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Lengths are in bytes as they arrive; those of strings are between the quotes, with escapes.

    A string longer than `blob_from` becomes a blob if it is base64. A text without spaces can be base64 by
    chance (a prompt of 32,000 times "a"): then set `blob_from` to the longest text that is allowed.
    """

    total: int = 128 * 1024 * 1024
    blobs: int = 100
    blob_from: int = 4 * 1024
    text: int = 384 * 1024
    """A string that is not base64 is cut to this length. The default holds 32,000 emoji as escapes of twelve
    bytes each."""
    skeleton: int = 4 * 1024 * 1024
    """The text without its pictures."""
    commas: int = 100_000
    """In the skeleton. No request has so many values; a million would block the interpreter for seconds."""

    def __post_init__(self) -> None:
        if self.blob_from > self.text:
            raise ValueError(
                "blob_from is above text: a string with a length between them would be cut, but not decoded"
            )
