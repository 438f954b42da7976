"""Work on pixels: making pictures uniform, changing their type or size, composing under a mask.

All of it takes tens of milliseconds per megapixel: call it through `threads.off_loop`.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from PIL import ExifTags, Image, ImageChops, ImageFilter, ImageOps

from app.contract.pictures import (
    MAX_PICTURE_BYTES,
    MAX_PIXELS,
    NotAPicture,
    Picture,
    PictureTooLarge,
    recognise,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

OutputType = Literal["image/png", "image/jpeg"]

_FEATHER = 0.01
"""Share of the shorter side over which an edit fades in."""

_STRIP = 256
"""Rows that are worked on at once: whole pictures of working copies would be what a request holds most of."""

_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# ── pictures that come in ────────────────────────────────────────────────────────────────────────────────


def normalise(picture: Picture) -> Picture:
    """The picture as every vendor takes it: whole, upright, one frame, 8 bits, PNG or JPEG, without metadata.

    The pixels of an upright JPEG or 8-bit PNG are not touched: metadata are cut out of the file. Whatever
    needs new pixels becomes a PNG, or a JPEG of quality 95 when it was one. A colour profile stays.
    Raises NotAPicture when the file is broken, PictureTooLarge when the result is over the document's 20 MB.
    """
    image = _open(picture)
    is_jpeg = picture.mime_type == "image/jpeg"
    if is_jpeg and image.mode in ("L", "RGB") and _turn(image) is None:
        _skim(image)
        data = _bare_jpeg(picture.data)
        if data is not picture.data:
            _skim(_open(recognise(data)))  # a crafted file may need what was cut out
    else:
        _load(image)
        if picture.mime_type == "image/png" and _is_plain_png(picture, image) and _turn(image) is None:
            data = _bare_png(picture.data)
        elif is_jpeg and image.mode != "CMYK":
            data = _encode(_plain(image), "image/jpeg", 95)
        else:
            data = _encode(_plain(image), "image/png")
    return picture if data == picture.data else _checked(recognise(data))


def _checked(picture: Picture) -> Picture:
    if len(picture.data) > MAX_PICTURE_BYTES:
        raise PictureTooLarge(f"more than {MAX_PICTURE_BYTES} bytes after transcoding")
    return picture


def _decode(picture: Picture) -> Image.Image:
    """The first frame, fully decoded."""
    image = _open(picture)
    _load(image)
    return image


def _open(picture: Picture) -> Image.Image:
    if picture.size[0] * picture.size[1] > MAX_PIXELS:
        raise PictureTooLarge("too many pixels")
    with _not_a_picture():
        return Image.open(BytesIO(picture.data))


def _skim(jpeg: Image.Image) -> None:
    """Read all of the file, but keep a sixty-fourth of the pixels."""
    jpeg.draft(None, (1, 1))
    _load(jpeg)


def _load(image: Image.Image) -> None:
    with _not_a_picture():
        image.load()


@contextmanager
def _not_a_picture() -> Iterator[None]:
    """Pillow's complaints in, ours out."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as exc:
        raise NotAPicture("broken") from exc


def _plain(image: Image.Image) -> Image.Image:
    """Upright, in 8 bits: L, RGB or RGBA. Keeps the colour profile, unless the colours are converted."""
    profile = None if image.mode == "CMYK" else image.info.get("icc_profile")
    if (turn := _turn(image)) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda level: level / 257).convert("L")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    image.info = {"icc_profile": profile} if profile else {}
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the image upright. EXIF that cannot be read says nothing."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return None


def _encode(image: Image.Image, mime_type: str, quality: int = 75, file: BytesIO | None = None) -> bytes:
    file = file or BytesIO()
    profile = image.info.get("icc_profile")
    if mime_type == "image/jpeg":
        image.save(file, "JPEG", quality=quality, icc_profile=profile)
    else:
        image.save(file, "PNG", compress_level=1, icc_profile=profile)
    return file.getvalue()


_PNG_CHUNKS = (b"IHDR", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"IDAT", b"IEND")


def _is_plain_png(picture: Picture, image: Image.Image) -> bool:
    """Grey, RGB or RGBA in 8 bits (the header's 24th byte: Pillow shows 16-bit colours as if they were 8)."""
    return image.mode in ("L", "RGB", "RGBA") and "transparency" not in image.info and picture.data[24] == 8


def _bare_png(data: bytes) -> bytes:
    """A sound PNG's pixels and colours: no text, no time, no EXIF, no animation, nothing after its end."""
    return _joined(data, [memoryview(data)[:8], *_png_chunks(data)])


def _png_chunks(data: bytes) -> Iterator[memoryview]:
    """The chunks to keep."""
    position, kind = 8, b""
    while kind != b"IEND" and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in _PNG_CHUNKS:
            yield memoryview(data)[position : position + length + 12]
        position += length + 12


def _joined(data: bytes, kept: list[memoryview]) -> bytes:
    """What is kept of the data; without a copy when that is all."""
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


_END_OF_IMAGE = b"\xff\xd9"
_NO_MARKERS = {b"", b"\x00", b"\xff", *(bytes([restart]) for restart in range(0xD0, 0xD8))}


def _bare_jpeg(data: bytes) -> bytes:
    """A sound JPEG's pixels and colours: no EXIF, XMP, comments or second pictures, nothing after its end."""
    return _joined(data, [memoryview(data)[:2], *_jpeg_segments(data), memoryview(_END_OF_IMAGE)])


def _jpeg_segments(data: bytes) -> Iterator[memoryview]:
    """The segments to keep, each with the compressed pixels that follow it."""
    start = _next_marker(data, 2)
    while start < len(data) and data[start : start + 2] != _END_OF_IMAGE:
        length = int.from_bytes(data[start + 2 : start + 4])
        following = _next_marker(data, start + 2 + length)
        if _is_kept(data[start : start + 18]):
            yield memoryview(data)[start:following]
        start = following


def _next_marker(data: bytes, position: int) -> int:
    """Where the next marker stands, or the end. FF also occurs, escaped, among the compressed pixels."""
    while (position := data.find(b"\xff", position)) >= 0:
        if data[position + 1 : position + 2] not in _NO_MARKERS:
            return position
        position += 1
    return len(data)


def _is_kept(segment: bytes) -> bool:
    """Not comments, nor application data but JFIF, colour profiles and Adobe's colour transform."""
    kind = segment[1]
    if kind == 0xE2:
        return segment[4:16] == b"ICC_PROFILE\0"
    return kind in (0xE0, 0xEE) or not (0xE1 <= kind <= 0xEF or kind == 0xFE)


# ── pictures that go out ─────────────────────────────────────────────────────────────────────────────────


def transcode(picture: Picture, mime_type: OutputType, quality: int = 75) -> Picture:
    """The picture as PNG or JPEG. JPEG knows no transparency: it is laid on white."""
    if picture.mime_type == mime_type:
        return picture
    image = _plain(_decode(picture))
    if mime_type == "image/jpeg":
        image = _opaque(image, "white")
    return Picture(_encode(image, mime_type, quality), mime_type, image.size)


def _opaque(image: Image.Image, ground: str) -> Image.Image:
    """The image laid on a ground. (Not by alpha_composite, which holds the GIL all the time.)"""
    if image.mode != "RGBA":
        return image
    opaque = Image.new("RGB", image.size, ground)
    opaque.paste(image, mask=image.getchannel("A"))
    opaque.info = image.info
    return opaque


def fit(picture: Picture, size: tuple[int, int]) -> Picture:
    """A PNG of exactly this size: scaled to cover it, what stands out cut off evenly."""
    image = ImageOps.fit(_plain(_decode(picture)), size, Image.Resampling.LANCZOS)
    return _png(image)


def limit(picture: Picture, longest_side: int) -> Picture:
    """The picture itself, or a PNG scaled down so that neither side is longer."""
    if max(picture.size) <= longest_side:
        return picture
    image = ImageOps.contain(_plain(_decode(picture)), (longest_side, longest_side), Image.Resampling.LANCZOS)
    return _png(image)


def lighten(picture: Picture, most_bytes: int, *, keep_size: bool) -> Picture:
    """The picture itself, or the best that has no more bytes: a PNG, else a JPEG on white.

    A JPEG may come out at half its sides unless it has to `keep_size`: a photograph of so many bytes has more
    pixels than models look at, and a fourth of them takes a fourth of the memory. Raises PictureTooLarge.
    """
    if len(picture.data) <= most_bytes:
        return picture
    image = _open(picture)
    attempts = [("image/jpeg", quality) for quality in (95, 85, 75, 50, 25)]
    if picture.mime_type != "image/jpeg":
        attempts.insert(0, ("image/png", 0))
    elif not keep_size:
        image.draft(None, (image.width // 2, image.height // 2))
    _load(image)
    image = _plain(image)
    for mime_type, quality in attempts:
        if mime_type == "image/jpeg":
            image = _opaque(image, "white")
        with suppress(_Full):
            return Picture(_encode(image, mime_type, quality, _Limited(most_bytes)), mime_type, image.size)
    raise PictureTooLarge(f"more than {most_bytes} bytes however it is encoded")


class _Full(Exception):
    """More was written than may be."""


class _Limited(BytesIO):
    """A file in memory that stays small: an encoder that writes more ends with _Full."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most = most_bytes

    def write(self, data: "Buffer", /) -> int:
        if self.tell() + len(memoryview(data)) > self._most:
            raise _Full
        return super().write(data)


# ── masks ────────────────────────────────────────────────────────────────────────────────────────────────


def compose(
    original: Picture, mask: Picture, edits: Sequence[Picture], *, dilation: int = 0
) -> tuple[Picture, ...]:
    """For each edit the original with the edit where the mask is not black, as a PNG of the original's size.

    Original and mask are normalised. The mask is first grown by `dilation` pixels in each direction. The edit
    fades in inside the mask: outside it every pixel is the original's.
    """
    fade = _fade(mask, original.size, dilation)
    base = _plain(_decode(original))
    if base.mode == "L":
        base = base.convert("RGB")
    *others, last = edits
    laid = [_png(_lay(base.copy(), edit, fade)) for edit in others]
    return (*laid, _png(_lay(base, last, fade)))


def _png(image: Image.Image) -> Picture:
    return Picture(_encode(image, "image/png"), "image/png", image.size)


def _fade(mask: Picture, size: tuple[int, int], dilation: int) -> Image.Image:
    """How much of an edit shows where: from black outside the grown mask to white inside."""
    area = _area(_plain(_decode(mask))).resize(size, Image.Resampling.NEAREST)
    return _feather(_grow(area, dilation), round(min(size) * _FEATHER))


def _lay(base: Image.Image, edit: Picture, fade: Image.Image) -> Image.Image:
    """The edit, scaled to the base's size, is faded into it, a strip at a time."""
    over = _plain(_decode(edit)).convert(base.mode)
    width, height = base.size
    # In width at once: Pillow scales height or width first as it finds cheaper, and strips must not differ.
    over = over.resize((width, over.height), Image.Resampling.LANCZOS)
    scale = over.height / height
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        box = (0, top * scale, width, bottom * scale)
        strip = over.resize((width, bottom - top), Image.Resampling.LANCZOS, box)
        base.paste(strip, (0, top), fade.crop((0, top, width, bottom)))
    return base


def _area(mask: Image.Image) -> Image.Image:
    """White where the mask is neither black nor transparent."""
    mask = _opaque(mask, "black")
    area = mask.getchannel(0)
    for channel in range(1, len(mask.getbands())):
        area = ImageChops.lighter(area, mask.getchannel(channel))
    return area.point(lambda level: 255 if level else 0)


def _grow(area: Image.Image, radius: int) -> Image.Image:
    """White also within `radius` pixels of white, along both axes.

    By overlaying shifted copies, twice as far in each step: a rank filter would need minutes.
    """
    radius = min(radius, max(area.size))
    reach = 0
    while reach < radius:
        step = min(reach + 1, radius - reach)
        for x, y in ((step, 0), (0, step)):
            area = ImageChops.lighter(area, ImageChops.lighter(_shift(area, x, y), _shift(area, -x, -y)))
        reach += step
    return area


def _shift(area: Image.Image, x: int, y: int) -> Image.Image:
    width, height = area.size
    return area.crop((x, y, x + width, y + height))


def _shrink(area: Image.Image, radius: int) -> Image.Image:
    """The opposite of growing. The picture's border is no edge of the area."""
    return ImageChops.invert(_grow(ImageChops.invert(area), radius))


def _feather(area: Image.Image, radius: int) -> Image.Image:
    """Black outside the area, rising to white inside it. Strokes too thin to rise in are white at once."""
    core = _shrink(area, radius)
    thin = ImageChops.subtract(area, _grow(core, radius))
    rising = ImageChops.darker(core.filter(ImageFilter.BoxBlur(radius)), area)
    return ImageChops.lighter(rising, thin)
