"""Work on pixels: making pictures uniform, changing their type or size.

A new picture's blob is of the given picture's scope. All functions take tens of milliseconds per megapixel:
call them through `threads.off_loop`. They raise NotAPicture if the file is broken, and NoRoom.
"""

import struct
from contextlib import suppress
from io import RawIOBase
from itertools import dropwhile
from typing import IO, TYPE_CHECKING, Literal, cast

from PIL import ExifTags, Image, ImageOps

from app.pictures.blob import Blob
from app.pictures.checks import check
from app.pictures.decoding import in_turn, load, opened, skim
from app.pictures.metadata import bare_jpeg, bare_png
from app.pictures.picture import MAX_PICTURE_BYTES, Picture, PictureTooLarge, recognise

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

OutputType = Literal["image/png", "image/jpeg"]

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


@in_turn
def normalise(picture: Picture) -> Picture:
    """The picture as every vendor takes it: whole, upright, one frame, 8 bits, PNG or JPEG, without metadata.

    The pixels of an upright JPEG or 8-bit PNG are not touched, and the PNG's are not even decoded: metadata
    are cut out of the file. Whatever needs new pixels becomes a PNG, or a JPEG of quality 95 when it was one.
    A colour profile stays. Returns the picture itself if nothing changes.
    Raises NotAPicture when the file is broken, PictureTooLarge when the result is over the document's 20 MB.
    """
    if _is_bare_png(picture):
        check(picture)
        return picture
    is_jpeg = picture.mime_type == "image/jpeg"
    with opened(picture) as image:
        if is_jpeg and image.mode in ("L", "RGB") and _turn(image) is None:
            skim(image)
            blob = bare_jpeg(picture.blob)
            if blob is not picture.blob:
                with opened(recognise(blob)) as bare:
                    skim(bare)  # a crafted file may need what was cut out
        elif picture.mime_type == "image/png" and _is_plain_png(picture, image):
            check(picture)
            blob = bare_png(picture.blob)
        else:
            load(image)
            mime_type: OutputType = "image/jpeg" if is_jpeg and image.mode != "CMYK" else "image/png"
            image = _plain(image)
            blob = _encode(image, picture.blob, mime_type, 95)
    if blob is picture.blob:
        return picture
    if blob.length > MAX_PICTURE_BYTES:
        raise PictureTooLarge(f"more than {MAX_PICTURE_BYTES} bytes after transcoding")
    return recognise(blob)


def _is_bare_png(picture: Picture) -> bool:
    """Grey, RGB or RGBA in 8 bits, and nothing but a header and pixels: as most programs write them.

    Nothing has to be opened to see that.
    """
    chunks = picture.blob.png.found
    if picture.mime_type != "image/png" or {name for name, _, _ in chunks} != {b"IHDR", b"IDAT", b"IEND"}:
        return False
    depth, colours = picture.blob.head(26)[24:]
    return (depth, colours) in ((8, 0), (8, 2), (8, 6)) and chunks[-1][2] == picture.length


def _is_plain_png(picture: Picture, image: Image.Image) -> bool:
    """Grey, RGB or RGBA in 8 bits, and upright.

    The header's 24th byte tells the bits: Pillow shows 16-bit colours as if they had 8. Behind the pixels may
    be EXIF or transparency, which Pillow reads only after the pixels.
    """
    names = (name for name, _, _ in picture.blob.png.found)
    if not {b"IDAT", b"IEND"}.issuperset(dropwhile(lambda name: name not in (b"IDAT", b"fdAT"), names)):
        load(image)
    is_plain = image.mode in ("L", "RGB", "RGBA") and "transparency" not in image.info
    return is_plain and picture.blob.head(25)[24] == 8 and _turn(image) is None


def decode(picture: Picture) -> Image.Image:
    """The first frame, upright, in 8 bits: L, RGB or RGBA. Raises NotAPicture and PictureTooLarge."""
    with opened(picture) as image:
        load(image)
        return _plain(image)


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
        exif = Image.Image.getexif(image)  # a PNG's own method would decode the pixels
        return _TURNS.get(exif.get(ExifTags.Base.Orientation))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return None


def _encode(
    image: Image.Image, source: Blob, mime_type: OutputType, quality: int = 75, most_bytes: int | None = None
) -> Blob:
    """Raises _Full when it would be longer than `most_bytes`."""
    blob = source.sibling()
    try:
        file = cast("IO[bytes]", _File(blob, most_bytes))
        profile = image.info.get("icc_profile")
        if mime_type == "image/jpeg":
            image.save(file, "JPEG", quality=quality, icc_profile=profile)
        else:
            image.save(file, "PNG", compress_level=1, icc_profile=profile)
        blob.seal()
    except BaseException:
        blob.close()
        raise
    return blob


class _Full(Exception):
    """More was written than may be."""


class _File(RawIOBase):
    """What Pillow writes goes into a blob; what would make it too long raises _Full."""

    def __init__(self, blob: Blob, most_bytes: int | None) -> None:
        self._blob = blob
        self._most = most_bytes

    def write(self, data: "Buffer", /) -> int:
        piece = bytes(data)
        if self._most is not None and self._blob.length + len(piece) > self._most:
            raise _Full
        self._blob.write(piece)
        return len(piece)


# ── pictures that go out ─────────────────────────────────────────────────────────────────────────────────


@in_turn
def transcode(picture: Picture, mime_type: OutputType, quality: int = 75) -> Picture:
    """The picture as PNG or JPEG. JPEG knows no transparency: it is laid on white."""
    if picture.mime_type == mime_type:
        return picture
    image = decode(picture)
    if mime_type == "image/jpeg":
        image = opaque(image, "white")
    return Picture(_encode(image, picture.blob, mime_type, quality), mime_type, image.size)


def opaque(image: Image.Image, ground: str) -> Image.Image:
    """The image laid on a ground. (Not by alpha_composite, which holds the GIL all the time.)"""
    if image.mode != "RGBA":
        return image
    opaque = Image.new("RGB", image.size, ground)
    opaque.paste(image, mask=image)  # its transparency
    opaque.info = image.info
    return opaque


def png(image: Image.Image, source: Blob) -> Picture:
    return Picture(_encode(image, source, "image/png"), "image/png", image.size)


@in_turn
def fit(picture: Picture, size: tuple[int, int]) -> Picture:
    """A PNG of exactly this size: scaled to cover it, what stands out cut off evenly."""
    image = ImageOps.fit(decode(picture), size, Image.Resampling.LANCZOS)
    return png(image, picture.blob)


@in_turn
def limit(picture: Picture, longest_side: int) -> Picture:
    """The picture itself, or a PNG scaled down so that neither side is longer."""
    if max(picture.size) <= longest_side:
        return picture
    image = ImageOps.contain(decode(picture), (longest_side, longest_side), Image.Resampling.LANCZOS)
    return png(image, picture.blob)


@in_turn
def lighten(picture: Picture, most_bytes: int, *, keep_size: bool) -> Picture:
    """The picture itself, or the best that has no more bytes: a PNG, else a JPEG on white.

    A JPEG may come out at half its sides unless it has to `keep_size`: a photograph of so many bytes has more
    pixels than models look at, and a fourth of them takes a fourth of the memory. Raises PictureTooLarge.
    """
    if picture.length <= most_bytes:
        return picture
    attempts: list[tuple[OutputType, int]] = [("image/jpeg", quality) for quality in (95, 85, 75, 50, 25)]
    with opened(picture) as image:
        if picture.mime_type != "image/jpeg":
            attempts.insert(0, ("image/png", 0))
        elif not keep_size:
            image.draft(None, (image.width // 2, image.height // 2))
        load(image)
        image = _plain(image)
    for mime_type, quality in attempts:
        if mime_type == "image/jpeg":
            image = opaque(image, "white")
        with suppress(_Full):
            blob = _encode(image, picture.blob, mime_type, quality, most_bytes)
            return Picture(blob, mime_type, image.size)
    raise PictureTooLarge(f"more than {most_bytes} bytes however it is encoded")


def has_alpha(picture: Picture) -> bool:
    """Whether a normalised picture has a channel of transparency. It is the PNG's colour type that tells."""
    return picture.mime_type == "image/png" and picture.blob.head(26)[25] in (4, 6)
