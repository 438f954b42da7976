"""Pictures are recognised by their bytes, in every spelling they come in."""

import base64
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.pictures.picture import (
    NotAPicture,
    PictureTooLarge,
    blob_of_base64,
)
from tests.pictures import samples
from tests.pictures.samples import blob, content, taken
from tools.rig.hostile_files import PNG, chunk

pytestmark = pytest.mark.usefixtures("scope")


def encoded(format: str) -> bytes:
    return samples.encoded(Image.new("RGB", (5, 3), "teal"), format)


@pytest.mark.parametrize(
    ("format", "mime_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_type_and_size_come_from_the_bytes(format: str, mime_type: str) -> None:
    data = encoded(format)
    found = taken(data)
    assert (found.mime_type, found.size, found.length) == (mime_type, (5, 3), len(data))


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
        taken(data)


def test_a_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(PictureTooLarge):
        taken(bomb + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))


def test_pillow_does_not_write_about_broken_metadata(tmp_path: Path) -> None:
    """It would warn about each of 500 fields that claim to be longer than the file."""
    fields = b"".join(struct.pack("<HHII", tag, 5, 2**31, 0) for tag in range(500))
    data = PNG[:33] + chunk(b"eXIf", b"II*\0\x08\0\0\0" + struct.pack("<H", 500) + fields) + PNG[33:]
    program = (
        "import sys; from pathlib import Path; from app.pictures.picture import picture\n"
        "from app.pictures.pixels import normalise; from app.pictures.work_folder import WorkFolder\n"
        "with WorkFolder(Path(sys.argv[1])) as folder, folder.blobs() as blobs:\n"
        "    normalise(picture(blobs.of(sys.stdin.buffer.read())))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
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
    assert content(blob_of_base64(text, blob(b"").scope)) == data


@pytest.mark.parametrize("text", ["%%%%", "abc\u00e9", "A", "data:image/png;base64,*", "=AAA"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(NotAPicture):
        blob_of_base64(text, blob(b"").scope)


def test_a_repr_holds_no_pixels() -> None:
    assert repr(taken(encoded("PNG"))).startswith("<Picture image/png 5x3, ")
