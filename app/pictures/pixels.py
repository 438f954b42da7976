"""Work on pixels: normalising pictures, changing their type or size.

A new picture's blob belongs to the scope of the given picture. All functions take tens of milliseconds per
megapixel: call them through `threads.off_loop`. They raise NotAPicture if the file is broken, and NoRoom.
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
    """Returns the picture as every vendor accepts it: whole, upright, one frame, 8 bits, PNG or JPEG, no
    metadata.

    The pixels of an upright JPEG or 8-bit PNG do not change (those of the PNG are not even decoded), since
    metadata is cut out of the file. Any other picture becomes a PNG, or a JPEG of quality 95 if it was a
    JPEG. A colour profile stays. Returns the same picture if nothing changes. Raises NotAPicture if the file
    is broken, and PictureTooLarge if the result is over the document's 20 MB.
    """
    if _is_bare_png(picture):
        check(picture)
        return picture
    is_jpeg = picture.mime_type == "image/jpeg"
    with opened(picture) as image:
        if is_jpeg and image.mode in ("L", "RGB") and _turn(image) is None:
            skim(image)
            blob = _bare_jpeg(picture.blob)
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


def _bare_jpeg(blob: Blob) -> Blob:
    """Returns the JPEG without metadata. Raises NotAPicture if it cannot be decoded without it."""
    bare = bare_jpeg(blob)
    if bare is not blob:
        with opened(recognise(bare)) as image:
            skim(image)
    return bare


def _is_bare_png(picture: Picture) -> bool:
    """Whether it is grey, RGB or RGBA in 8 bits, with nothing but a header and pixels, as most programs
    write.

    The file is not opened for this.
    """
    chunks = picture.blob.png.found
    if picture.mime_type != "image/png" or {name for name, _, _ in chunks} != {b"IHDR", b"IDAT", b"IEND"}:
        return False
    depth, colours = picture.blob.head(26)[24:]
    return (depth, colours) in ((8, 0), (8, 2), (8, 6)) and chunks[-1][2] == picture.length


def _is_plain_png(picture: Picture, image: Image.Image) -> bool:
    """Whether it is grey, RGB or RGBA in 8 bits, and upright.

    The bit depth is byte 24 of the file, since Pillow reports 16-bit colours as 8-bit ones. EXIF and
    transparency can come after the pixels; then Pillow reads them only when it has decoded the pixels.
    """
    names = (name for name, _, _ in picture.blob.png.found)
    if not {b"IDAT", b"IEND"}.issuperset(dropwhile(lambda name: name not in (b"IDAT", b"fdAT"), names)):
        load(image)
    is_plain = image.mode in ("L", "RGB", "RGBA") and "transparency" not in image.info
    return is_plain and picture.blob.head(25)[24] == 8 and _turn(image) is None


def decode(picture: Picture) -> Image.Image:
    """Returns the first frame, upright, in 8 bits: L, RGB or RGBA. Raises NotAPicture and PictureTooLarge."""
    with opened(picture) as image:
        load(image)
        return _plain(image)


def _plain(image: Image.Image) -> Image.Image:
    """Returns the image upright, in 8 bits: L, RGB or RGBA. The colour profile of CMYK is dropped."""
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
    """Returns the turn that makes the image upright, or None. EXIF that cannot be read counts as none."""
    try:
        exif = Image.Image.getexif(image)  # a PNG's own method would decode the pixels
        return _TURNS.get(exif.get(ExifTags.Base.Orientation))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return None


def _encode(
    image: Image.Image, source: Blob, mime_type: OutputType, quality: int = 75, most_bytes: int | None = None
) -> Blob:
    """Returns the encoded image in a new blob. Raises _TooLong if it has more than `most_bytes`."""
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


class _TooLong(Exception):
    """The encoded image has more bytes than allowed."""


class _File(RawIOBase):
    """The file object that Pillow writes to: it writes to a blob. Raises _TooLong beyond `most_bytes`."""

    def __init__(self, blob: Blob, most_bytes: int | None) -> None:
        self._blob = blob
        self._most = most_bytes

    def write(self, data: "Buffer", /) -> int:
        piece = bytes(data)
        if self._most is not None and self._blob.length + len(piece) > self._most:
            raise _TooLong
        self._blob.write(piece)
        return len(piece)


# ── pictures that go out ─────────────────────────────────────────────────────────────────────────────────


@in_turn
def transcode(picture: Picture, mime_type: OutputType, quality: int = 75) -> Picture:
    """Returns the picture as PNG or JPEG. For JPEG, transparent pixels are put on white."""
    if picture.mime_type == mime_type:
        return picture
    image = decode(picture)
    if mime_type == "image/jpeg":
        image = opaque(image, "white")
    return Picture(_encode(image, picture.blob, mime_type, quality), mime_type, image.size)


def opaque(image: Image.Image, ground: str) -> Image.Image:
    """Returns the image on a background colour. (`alpha_composite` would hold the GIL all the time.)"""
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
    """Returns a PNG of exactly this size: the picture is scaled to cover it, and its edges are cut off
    evenly."""
    image = ImageOps.fit(decode(picture), size, Image.Resampling.LANCZOS)
    return png(image, picture.blob)


@in_turn
def limit(picture: Picture, longest_side: int) -> Picture:
    """Returns the picture, or a PNG that is scaled down so that neither side is longer."""
    if max(picture.size) <= longest_side:
        return picture
    image = ImageOps.contain(decode(picture), (longest_side, longest_side), Image.Resampling.LANCZOS)
    return png(image, picture.blob)


@in_turn
def lighten(picture: Picture, most_bytes: int, *, keep_size: bool) -> Picture:
    """Returns the picture, or the best copy of at most `most_bytes`: a PNG, or else a JPEG on white.

    A JPEG can become half as wide and high, unless `keep_size` is set: a photograph of so many bytes has more
    pixels than models use, and a fourth of the pixels needs a fourth of the memory. Raises PictureTooLarge.
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
        with suppress(_TooLong):
            blob = _encode(image, picture.blob, mime_type, quality, most_bytes)
            return Picture(blob, mime_type, image.size)
    raise PictureTooLarge(f"more than {most_bytes} bytes in every encoding")


def has_alpha(picture: Picture) -> bool:
    """Whether a normalised picture has an alpha channel, by the PNG's colour type."""
    return picture.mime_type == "image/png" and picture.blob.head(26)[25] in (4, 6)
