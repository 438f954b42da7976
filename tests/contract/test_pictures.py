"""Pictures are recognised by their bytes, in every spelling they come in."""

import base64
import struct
import subprocess
import sys
import zlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.contract.pictures import (
    GcsUri,
    NotAPicture,
    Picture,
    PictureTooLarge,
    decode_base64,
    picture,
    read_source,
)
from tests.hostile_files import PNG, chunk


def encoded(format: str, size: tuple[int, int] = (5, 3)) -> bytes:
    out = BytesIO()
    Image.new("RGB", size, "teal").save(out, format)
    return out.getvalue()


@pytest.mark.parametrize(
    ("format", "mime_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_type_and_size_come_from_the_bytes(format: str, mime_type: str) -> None:
    data = encoded(format)
    assert picture(data) == Picture(data, mime_type, (5, 3))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="magic only"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(b"<html><img src=x onerror=alert(1)></html>", id="html"),
        pytest.param(encoded("BMP"), id="bmp"),
        pytest.param(encoded("TIFF"), id="tiff"),
        pytest.param(encoded("PNG")[:20], id="cut in the header"),
        pytest.param(b"%PDF-1.7\n", id="pdf"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(NotAPicture):
        picture(data)


def test_a_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(PictureTooLarge):
        picture(bomb + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))


def test_pillow_does_not_write_about_broken_metadata() -> None:
    """It would warn about each of 500 fields that claim to be longer than the file."""
    fields = b"".join(struct.pack("<HHII", tag, 5, 2**31, 0) for tag in range(500))
    data = PNG[:33] + chunk(b"eXIf", b"II*\0\x08\0\0\0" + struct.pack("<H", 500) + fields) + PNG[33:]
    program = (
        "import sys; from app.contract.pixels import normalise; from app.contract.pictures import picture\n"
        "normalise(picture(sys.stdin.buffer.read()))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert done.stderr == b""


@given(st.binary(max_size=200), st.sampled_from(["standard", "url-safe", "unpadded", "data uri", "lines"]))
def test_base64_is_read_in_every_spelling(data: bytes, spelling: str) -> None:
    text = base64.b64encode(data).decode()
    match spelling:
        case "url-safe":
            text = base64.urlsafe_b64encode(data).decode()
        case "unpadded":
            text = text.rstrip("=")
        case "data uri":
            text = "data:image/png;base64," + text
        case "lines":
            text = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\n"
    assert decode_base64(text) == data


@pytest.mark.parametrize("text", ["%%%%", "abc\u00e9", "A", "data:image/png;base64,*", "=AAA"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(NotAPicture):
        decode_base64(text)


def test_a_gs_uri_is_not_fetched() -> None:
    assert read_source("gs://bucket/object.png") == GcsUri("gs://bucket/object.png")


def test_a_repr_holds_no_pixels() -> None:
    assert repr(picture(encoded("PNG"))).startswith("<Picture image/png 5x3, ")
