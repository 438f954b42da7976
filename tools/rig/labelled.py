"""Pictures that contain the prompt of their request, so that they can be counted and compared.

A label is `PROMPT/NUMBER/KILOBYTES`, for example `bench-crowd-7/0/1500`. `drawn(label)` always returns the
same PNG.
"""

import hashlib
import zlib
from functools import cache

import pybase64

SIDE = 1024
SIZES_KB = (40, 300, 1500)
_KEYWORD = b"bench\0"
_HEAD_BYTES = 33
"""A PNG's signature and its first chunk."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


@cache
def _plain(kilobytes: int) -> bytes:
    """Returns a PNG of about this size: rows of noise, then black rows."""
    noise = hashlib.shake_128(b"bench").digest(kilobytes * 1000)  # the same in every process
    rows = bytearray(SIDE * (1 + 3 * SIDE))
    rows[: len(noise)] = noise
    for row in range(SIDE):
        rows[row * (1 + 3 * SIDE)] = 0  # no filter
    header = SIDE.to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(rows), 1)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def beginning(label: str) -> bytes:
    """Returns the PNG up to the end of the chunk with the label: a multiple of 3 bytes, to join base64."""
    text = _KEYWORD + label.encode()
    text += b" " * (-(_HEAD_BYTES + 12 + len(text)) % 3)
    return _plain(kilobytes_of(label))[:_HEAD_BYTES] + _chunk(b"tEXt", text)


def kilobytes_of(label: str) -> int:
    return int(label.rpartition("/")[2])


def drawn(label: str) -> bytes:
    """Returns the PNG with this label."""
    return beginning(label) + _plain(kilobytes_of(label))[_HEAD_BYTES:]


@cache
def rest_in_base64(kilobytes: int) -> bytes:
    """Returns the PNG after its `beginning`, in base64."""
    return pybase64.b64encode(_plain(kilobytes)[_HEAD_BYTES:])


def label_of(picture: bytes) -> str | None:
    """Returns the label in a picture's first bytes, or None if it was not drawn here."""
    at = _HEAD_BYTES + 8
    if picture[at - 4 : at + len(_KEYWORD)] != b"tEXt" + _KEYWORD:
        return None
    length = int.from_bytes(picture[at - 8 : at - 4], "big")
    return picture[at + len(_KEYWORD) : at + length].decode().rstrip()


def prompt_of(label: str) -> str:
    return label.partition("/")[0]
