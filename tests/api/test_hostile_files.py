"""Files that are no pictures, in every place where one is taken; and odd pictures that are fine."""

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, PngImagePlugin
from PIL.ImageFile import ImageFile

from app.emulator.server import Emulator
from tests.api.conftest import Client, Start, client_of
from tools.rig.bodies import (
    FIELDS,
    MODELS,
    SIZE,
    as_form,
    as_json,
    body,
    encoded,
    opened,
    path,
    picture,
    replaced,
)
from tools.rig.hostile_files import HOSTILE, disposed_gif

NO_PICTURE = "must be a PNG, JPEG, WebP or GIF image"
MOST_DECODED = 4 * SIZE[0] * SIZE[1]
TOO_LARGE = "must not be larger than 20 MB or 50 megapixels"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(size: tuple[int, int], *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(chunks) + _chunk(b"IEND", b"")


def _gif(size: tuple[int, int]) -> bytes:
    return (
        b"GIF89a" + struct.pack("<HH", *size) + b"\x00\x00\x00" + b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00;"
    )


def _cut(format: str) -> bytes:
    data = encoded(Image.effect_noise(SIZE, 80).convert("RGB"), format)
    return data[: len(data) // 2]


def _bad_crc() -> bytes:
    data = bytearray(picture())
    data[data.index(b"IDAT") + 8] ^= 0xFF
    return bytes(data)


def _webp_bomb() -> bytes:
    """A lossless header of 16383 by 16383 pixels."""
    bits = (16382 | 16382 << 14).to_bytes(4, "little")
    return b"RIFF" + struct.pack("<I", 18) + b"WEBPVP8L" + struct.pack("<I", 5) + b"\x2f" + bits + b"\x00"


BAD: dict[str, tuple[bytes, str]] = {
    "nothing but a signature": (b"\x89PNG\r\n\x1a\n", NO_PICTURE),
    "truncated PNG": (_cut("PNG"), NO_PICTURE),
    "truncated JPEG": (_cut("JPEG"), NO_PICTURE),
    "JPEG that needs what would be cut out": (
        picture(format="JPEG")[:-2] + b"\xff\xda\xff\xd9",
        NO_PICTURE,
    ),
    "truncated WebP": (_cut("WEBP"), NO_PICTURE),
    "truncated GIF": (_cut("GIF"), NO_PICTURE),
    "PNG with a wrong checksum": (_bad_crc(), NO_PICTURE),
    "PNG without pixels": (_png((8, 8)), NO_PICTURE),
    "PNG of zero size": (_png((0, 8), _chunk(b"IDAT", zlib.compress(b""))), NO_PICTURE),
    "GIF of zero size": (_gif((0, 0)), NO_PICTURE),
    "PNG of a huge header": (_png((60_000, 60_000), _chunk(b"IDAT", zlib.compress(b"\0" * 99))), TOO_LARGE),
    "PNG of 2^31 pixels a side": (_png((2**31 - 1, 2**31 - 1), _chunk(b"IDAT", b"")), TOO_LARGE),
    "PNG whose text inflates 1000 times": (
        _png((8, 8), _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 90_000_000)), _chunk(b"IDAT", b"")),
        NO_PICTURE,
    ),
    "WebP of a huge header": (_webp_bomb(), TOO_LARGE),
    "GIF of a huge header": (_gif((65_535, 65_535)), TOO_LARGE),
    "GIF of a huge frame to be cleared": (disposed_gif(65_535, 65_535), TOO_LARGE),
    "GIF of a frame of 50.1 megapixels to be cleared": (disposed_gif(7_080, 7_080), TOO_LARGE),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', NO_PICTURE),
    "HTML": (b"<!doctype html><script>alert(1)</script>", NO_PICTURE),
    "PDF": (b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF", NO_PICTURE),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(file) run", NO_PICTURE),
    "HTML before a PNG": (b"<script>alert(1)</script>" + picture(), NO_PICTURE),
    "TIFF": (picture(format="TIFF"), NO_PICTURE),
    "BMP": (picture(format="BMP"), NO_PICTURE),
    "AVIF by its name": (b"\0\0\0\x1cftypavif" + bytes(200), NO_PICTURE),
    "random bytes": (bytes(range(256)) * 40, NO_PICTURE),
    "zeros": (bytes(10_000), NO_PICTURE),
}

DAMAGED: dict[str, bytes] = {
    "PNG whose pixels inflate 1000 times": _png(SIZE, _chunk(b"IDAT", zlib.compress(b"\7" * 50_000_000))),
    "PNG of too few pixels": _png(SIZE, _chunk(b"IDAT", zlib.compress(bytes(1000)))),
    "PNG whose pixels are not packed": _png(SIZE, _chunk(b"IDAT", bytes(1000))),
    "PNG whose packed pixels are cut": _png(SIZE, _chunk(b"IDAT", zlib.compress(bytes(20_000))[:20])),
}
"""Sound chunks with damaged pixels in them. The gateway checks a PNG's chunks and not its pixels: the first
program that decodes them refuses them."""

Send = Callable[[Client, str, str, bytes], httpx.Response]


def send_json(client: Client, operation: str, field: str, data: bytes) -> httpx.Response:
    return client.post(path(operation), as_json(_one_sample(operation, field, data)))


def send_form(client: Client, operation: str, field: str, data: bytes) -> httpx.Response:
    """Every file is called picture.png and sent as image/png."""
    return client.http.post(path(operation), files=list(as_form(_one_sample(operation, field, data))))


def _one_sample(operation: str, field: str, value: Any) -> dict[str, Any]:
    count = {} if operation == "image-upscale" else {"sampleCount": 1}
    return replaced(body(operation, **count), field, value)


SPELLINGS = pytest.mark.parametrize(
    "send", [pytest.param(send_json, id="JSON"), pytest.param(send_form, id="form")]
)
PLACES = pytest.mark.parametrize(
    ("operation", "field"), [pytest.param(*place, id=f"{place[0]} {place[1]}") for place in FIELDS]
)


@pytest.fixture
def unpaid(client: Client, emulator: Emulator) -> Iterator[Client]:
    """The gateway; in the end the vendor was not asked, and the process is well."""
    yield client
    assert emulator.calls.list() == ()
    assert client.http.get("/health").json() == {"status": "ok"}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pixels of each picture that the gateway decodes. It runs in a thread of this process."""
    sizes: list[int] = []
    load = ImageFile.load

    def counted(image: ImageFile) -> Any:
        sizes.append(image.width * image.height)
        return load(image)

    monkeypatch.setattr(ImageFile, "load", counted)
    return sizes


@pytest.mark.parametrize("name", BAD)
@PLACES
@SPELLINGS
def test_what_is_no_picture_is_told_by_its_field(
    unpaid: Client, decoded: list[int], send: Send, operation: str, field: str, name: str
) -> None:
    """Whatever size a file claims to have: no more pixels are decoded than the small files have."""
    data, rule = BAD[name]
    answer = send(unpaid, operation, field, data)
    assert (answer.status_code, answer.json()) == (
        400,
        {"statusCode": 400, "message": [f"{field} {rule}"], "error": "Bad Request"},
    )
    assert sum(decoded) <= MOST_DECODED


@pytest.mark.parametrize("name", DAMAGED)
@PLACES
@SPELLINGS
def test_damaged_pixels_are_a_400_and_cost_nothing(
    client: Client, emulator: Emulator, send: Send, operation: str, field: str, name: str
) -> None:
    answer = send(client, operation, field, DAMAGED[name])
    assert (answer.status_code, answer.json()["error"]) == (400, "Bad Request")
    assert emulator.calls.paid == 0


@pytest.fixture(scope="module")
def with_gemini(start: Start) -> Iterator[Client]:
    """A gateway from which Imagen's editor is gone."""
    with start() as url:
        client = client_of(url)
        yield client
        client.http.close()


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize(
    ("operation", "field"), [place for place in FIELDS if place[0] in ("image-edit", "image-customize")]
)
def test_damaged_pixels_cost_nothing_when_gemini_serves(
    with_gemini: Client, emulator: Emulator, operation: str, field: str, name: str
) -> None:
    """It knows no masks: the original and the mask are opened here, before it is asked."""
    emulator.troubles.set("retired", model=MODELS[operation])
    answer = send_json(with_gemini, operation, field, DAMAGED[name])
    assert (answer.status_code, answer.json()["error"]) == (400, "Bad Request")
    assert emulator.calls.paid == 0
    if operation == "image-edit":
        assert answer.json()["message"] == [f"{field} {NO_PICTURE}"]


def test_damaged_pixels_of_a_large_file_cost_nothing(unpaid: Client) -> None:
    """What is too large for the model is made smaller here."""
    large = _png((2000, 2000), _chunk(b"IDAT", bytes(8_000_000)))
    answer = send_form(unpaid, "image-upscale", "image", large)
    assert (answer.status_code, answer.json()["message"]) == (400, "a picture is damaged")


@pytest.mark.parametrize("sides", [(512, 512), (576, 512)], ids=["as the model wants it", "to be resized"])
@pytest.mark.parametrize("damage", [zlib.compress(bytes(1000)), bytes(1000)], ids=["too few", "not packed"])
def test_damaged_pixels_are_told_by_gen_and_cost_nothing(
    unpaid: Client, sides: tuple[int, int], damage: bytes
) -> None:
    wish = {"mode": "img2img", "prompt": "a harbour", "regen_prompt": True}
    answer = unpaid.post("/gen", as_json({**wish, "init_image": _png(sides, _chunk(b"IDAT", damage))}))
    assert (answer.status_code, answer.json()) == (
        400,
        {
            "status": "error",
            "error": "Invalid init_image",
            "details": "The 'init_image' field is a damaged image",
        },
    )


@PLACES
@SPELLINGS
def test_too_many_parts_are_told_by_their_field(
    unpaid: Client, send: Send, operation: str, field: str
) -> None:
    refusal = {"statusCode": 400, "message": [f"{field} {NO_PICTURE}"], "error": "Bad Request"}
    for name, (make, fewest) in HOSTILE.items():
        answer = send(unpaid, operation, field, make(fewest))
        assert (answer.status_code, answer.json()) == (400, refusal), name


@pytest.mark.parametrize("path", ["/gen", "/pro/gen"])
def test_gen_refuses_too_many_parts(unpaid: Client, path: str) -> None:
    wish = {"mode": "img2img", "prompt": "a harbour"}
    refusal = {
        "status": "error",
        "error": "Invalid init_image",
        "details": "The 'init_image' field must be a PNG or JPEG image",
    }
    for name, (make, fewest) in HOSTILE.items():
        as_text = unpaid.post(path, as_json({**wish, "init_image": make(fewest)}))
        as_file = unpaid.http.post(path, data=wish, files={"init_image": ("picture.png", make(fewest))})
        for answer in (as_text, as_file):
            assert (answer.status_code, answer.json()) == (400, refusal), name


@PLACES
@SPELLINGS
def test_an_empty_picture_is_told_by_its_field(
    unpaid: Client, send: Send, operation: str, field: str
) -> None:
    answer = send(unpaid, operation, field, b"")
    name = "each value in productImages" if field.startswith("productImages") else field
    assert (answer.status_code, answer.json()["message"]) == (400, [f"{name} should not be empty"])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("!!!not base64!!!", id="not base64"),
        pytest.param("iVBORw0KGgo", id="cut base64"),
        pytest.param("data:text/html;base64,PGh0bWw+", id="data URI of HTML"),
        pytest.param("data:image/png;base64,", id="empty data URI"),
        pytest.param("file:///etc/passwd", id="file URL"),
        pytest.param("http://169.254.169.254/latest/meta-data", id="URL"),
        pytest.param("\U0001f600", id="emoji"),
        pytest.param("\x00", id="null byte"),
        pytest.param("A" * 1_000_001, id="long"),
    ],
)
@PLACES
def test_text_that_is_no_picture_is_told_by_its_field(
    unpaid: Client, operation: str, field: str, text: str
) -> None:
    answer = unpaid.post(path(operation), as_json(_one_sample(operation, field, text)))
    assert (answer.status_code, answer.json()["message"]) == (400, [f"{field} {NO_PICTURE}"])


@pytest.mark.parametrize(
    "uri", ["gs://elsewhere/a.png", "gs://image-gateway-2/a.png", "gs://", "gs://image-gateway"]
)
@PLACES
def test_an_object_elsewhere_is_told_by_its_field(
    unpaid: Client, operation: str, field: str, uri: str
) -> None:
    answer = unpaid.post(path(operation), as_json(_one_sample(operation, field, uri)))
    rule = "must be a gs:// URI under one of the allowed prefixes"
    assert (answer.status_code, answer.json()["message"]) == (400, [f"{field} {rule}"])


@PLACES
@SPELLINGS
def test_more_than_20_megabytes_are_refused(unpaid: Client, send: Send, operation: str, field: str) -> None:
    answer = send(unpaid, operation, field, picture() + bytes(20 * 2**20))
    if send is send_form:
        assert (answer.status_code, answer.json()) == (
            413,
            {"statusCode": 413, "message": "File too large", "error": "Payload Too Large"},
        )
    else:
        assert (answer.status_code, answer.json()["message"]) == (400, [f"{field} {TOO_LARGE}"])


# ── odd, but pictures ────────────────────────────────────────────────────────────────────────────────────


def _animated(format: str) -> bytes:
    frames = [Image.effect_noise(SIZE, sigma).convert("RGB") for sigma in (20, 60, 90)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=40)


def _with_exif(format: str, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "secret place"
    size = SIZE[::-1] if orientation > 4 else SIZE
    return encoded(Image.new("RGB", size, "olive"), format, exif=exif)


def _with_text(name: str, mode: str = "RGB") -> bytes:
    """Pillow takes such a text for what it reads from other chunks."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text(name, "secret place")
    return encoded(Image.new(mode, SIZE), "PNG", pnginfo=texts)


GOOD: dict[str, bytes] = {
    "animated GIF": _animated("GIF"),
    "animated PNG": _animated("PNG"),
    "animated WebP": _animated("WEBP"),
    "WebP": picture(format="WEBP"),
    "16-bit PNG": encoded(Image.new("I;16", SIZE, 40_000), "PNG"),
    "CMYK JPEG": encoded(Image.new("CMYK", SIZE, (9, 99, 0, 0)), "JPEG"),
    "palette PNG with transparency": encoded(Image.new("P", SIZE, 3), "PNG", transparency=3),
    "1-bit PNG": encoded(Image.new("1", SIZE, 1), "PNG"),
    "JPEG with EXIF": _with_exif("JPEG"),
    "JPEG lying on its side": _with_exif("JPEG", orientation=6),
    "PNG with EXIF": _with_exif("PNG"),
    "PNG with HTML behind it": picture() + b"<script>alert('secret place')</script>",
    "JPEG with a ZIP behind it": picture(format="JPEG") + b"PK\x03\x04 secret place",
    "JPEG called PNG": picture(format="JPEG"),
    "PNG with a text called transparency": _with_text("transparency"),
    "PNG with a text called icc_profile": _with_text("icc_profile"),
    "16-bit PNG with a text called icc_profile": _with_text("icc_profile", "I;16"),
}
PLAIN = Image.new("RGB", SIZE, "olive")
CLEAN: dict[str, bytes] = {
    "JPEG with EXIF": encoded(PLAIN, "JPEG"),
    "PNG with EXIF": encoded(PLAIN, "PNG"),
    "PNG with HTML behind it": picture(),
    "JPEG with a ZIP behind it": picture(format="JPEG"),
    "JPEG called PNG": picture(format="JPEG"),
}
"""What must reach the vendor, where that is the very file without its trimmings."""


def digest(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def digests(value: Any) -> Iterator[Any]:
    """What the emulator keeps of the pictures in a call."""
    if isinstance(value, dict) and value.keys() == {"sha256", "bytes"}:
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from digests(one)


@pytest.mark.parametrize("name", GOOD)
@PLACES
@SPELLINGS
def test_an_odd_picture_is_made_uniform(
    client: Client, emulator: Emulator, send: Send, operation: str, field: str, name: str
) -> None:
    """The emulator takes PNG and JPEG only, and compares the mask's size with the picture's."""
    answer = send(client, operation, field, GOOD[name])
    assert answer.status_code == 200, answer.text
    (call,) = emulator.calls.list()
    received = list(digests(call.body))
    if name in CLEAN:
        assert digest(CLEAN[name]) in received
    else:
        assert digest(GOOD[name]) not in received


def test_a_picture_on_its_side_is_set_upright(client: Client) -> None:
    answer = send_json(client, "image-upscale", "image", GOOD["JPEG lying on its side"])
    assert opened(answer.json()["predictions"][0]["bytesBase64Encoded"]).size == (192, 128)
