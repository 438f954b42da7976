"""What one JSON text with pictures in it may hold, and how it is refused."""

from dataclasses import dataclass


class MalformedJson(ValueError):
    """The bytes are no JSON. The message is for the caller, and quotes nothing of the text."""


class JsonTooLarge(ValueError):
    """A limit is exceeded. The message says which."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Lengths are bytes as they arrive: of strings, between the quotes, with their escapes.

    A string longer than `blob_from` becomes a blob if it is base64. Where a text may be letters without a
    space (a prompt of 32,000 times "a"), set `blob_from` to the longest text that is allowed.
    """

    total: int = 128 * 1024 * 1024
    blobs: int = 100
    blob_from: int = 4 * 1024
    text: int = 384 * 1024
    """Of a string that is not base64; a longer one is shortened to this. The default holds 32,000 emoji,
    twelve characters of escapes each."""
    skeleton: int = 4 * 1024 * 1024
    """Everything but the blobs."""
    commas: int = 100_000
    """Outside blobs. More values than any request has; a million would hold the interpreter for seconds."""

    def __post_init__(self) -> None:
        if self.blob_from > self.text:
            raise ValueError("blob_from is above text: a string of a length between them could be neither")
