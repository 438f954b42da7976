"""What happens to pixels: uniform pictures in, the asked type out, and the promise about masks."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageFile, PngImagePlugin

from app.pictures import decoding, masks, pixels
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge, recognise
from app.threads import off_loop
from tests.pictures.samples import blob, content, encoded, file, noise, opened, taken
from tools.rig.hostile_files import chunk

SIDES = st.integers(1, 40)


pytestmark = pytest.mark.usefixtures("scope")


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode and one.size == other.size and one.tobytes() == other.tobytes()


def exif(orientation: int = 1) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    data[0x010F] = "Secret Camera Maker"
    return data


# ── normalise ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_picture_is_left_alone(mode: str, format: str) -> None:
    given = file(noise((20, 10), mode), format)
    assert pixels.normalise(given) is given


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_metadata_are_cut_out_and_pixels_kept(format: str) -> None:
    image = noise((40, 30))
    about = PngImagePlugin.PngInfo()
    about.add_text("Author", "Secret Name")
    options: dict[str, Any] = {"exif": exif()}
    options |= {"pnginfo": about} if format == "PNG" else {"comment": b"Secret Name", "xmp": b"Secret XMP"}
    bare, marked = file(image, format), file(image, format, **options)
    assert b"Secret" in content(marked)
    assert content(pixels.normalise(marked)) == content(bare)


def test_nothing_follows_a_picture() -> None:
    for format in ("PNG", "JPEG"):
        given = file(noise((9, 9)), format)
        polyglot = taken(content(given) + b"<script>alert(1)</script>")
        assert content(pixels.normalise(polyglot)) == content(given)


def test_progressive_jpeg_with_restarts_stays_whole() -> None:
    given = file(noise((64, 64)), "JPEG", progressive=True, restart_marker_blocks=2, exif=exif())
    made = pixels.normalise(given)
    assert b"Secret" not in content(made)
    assert same(opened(made), opened(given))


def test_second_pictures_of_a_phone_are_dropped() -> None:
    """Phones append a depth map or an HDR gain map (MPF)."""
    given = file(noise((16, 16)), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16), "red")])
    assert given.mime_type == "image/jpeg"
    made = pixels.normalise(given)
    assert b"MPF" not in content(made)
    assert made.length < given.length
    assert opened(made).format == "JPEG"


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_colour_profile_stays(format: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for orientation in (1, 6):
        given = file(noise((8, 4)), format, icc_profile=profile, exif=exif(orientation))
        assert opened(pixels.normalise(given)).info["icc_profile"] == profile


@given(st.integers(1, 8), st.tuples(SIDES, SIDES))
@settings(max_examples=40, deadline=None)
def test_orientation_is_applied(orientation: int, size: tuple[int, int]) -> None:
    image = noise(size)
    upright = {
        1: image,
        2: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: image.rotate(180),
        4: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: image.transpose(Image.Transpose.TRANSPOSE),
        6: image.rotate(-90, expand=True),
        7: image.transpose(Image.Transpose.TRANSVERSE),
        8: image.rotate(90, expand=True),
    }[orientation]
    made = pixels.normalise(file(image, exif=exif(orientation)))
    assert same(opened(made), upright)
    assert made.size == upright.size
    assert not opened(made).getexif()


def test_turned_jpeg_stays_a_jpeg() -> None:
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    made = pixels.normalise(file(image, "JPEG", exif=exif(6)))
    assert (made.mime_type, made.size) == ("image/jpeg", (20, 40))
    assert opened(made).getpixel((10, 5)) == pytest.approx((254, 0, 0), abs=3)
    assert b"Secret" not in content(made)


def palette(alpha: bool) -> Image.Image:
    image = Image.new("P", (12, 12))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 6, 6))
    image.paste(2, (6, 6, 9, 12))
    if alpha:
        image.info["transparency"] = 1
    return image


SIXTEEN_BITS = Image.frombytes("I;16", (3, 1), bytes([0, 0, 0, 0x80, 0xFF, 0xFF]))


@pytest.mark.parametrize(
    ("data", "mode", "mime_type"),
    [
        pytest.param(encoded(noise((9, 7)), "WEBP", lossless=True), "RGB", "image/png", id="webp"),
        pytest.param(
            encoded(noise((9, 7), "RGBA"), "WEBP", lossless=True), "RGBA", "image/png", id="webp alpha"
        ),
        pytest.param(encoded(palette(alpha=False), "GIF"), "RGB", "image/png", id="gif"),
        pytest.param(encoded(palette(alpha=True), "GIF"), "RGBA", "image/png", id="gif alpha"),
        pytest.param(encoded(palette(alpha=False)), "RGB", "image/png", id="palette"),
        pytest.param(encoded(palette(alpha=True)), "RGBA", "image/png", id="palette with transparency"),
        pytest.param(encoded(noise((9, 7)), transparency=(1, 2, 3)), "RGBA", "image/png", id="colour key"),
        pytest.param(encoded(noise((9, 7), "LA")), "RGBA", "image/png", id="grey with alpha"),
        pytest.param(encoded(Image.new("1", (9, 7), 1)), "L", "image/png", id="one bit"),
        pytest.param(encoded(SIXTEEN_BITS), "L", "image/png", id="16 bits"),
        pytest.param(encoded(noise((9, 7), "CMYK"), "JPEG"), "RGB", "image/png", id="cmyk"),
        pytest.param(encoded(noise((9, 7), "YCbCr"), "JPEG"), "RGB", "image/jpeg", id="ycbcr"),
    ],
)
def test_every_kind_of_file_becomes_a_uniform_one(data: bytes, mode: str, mime_type: str) -> None:
    given = taken(data)
    made = pixels.normalise(given)
    assert (made.mime_type, made.size) == (mime_type, given.size)
    image = opened(made)
    assert image.mode == mode
    if mime_type == "image/png" and "A" in mode:
        expected = opened(given).convert("RGBA")
        assert same(image, expected)
    elif mime_type == "image/png" and mode == "RGB":
        assert same(image, opened(given).convert("RGB"))


def test_sixteen_bits_keep_their_brightness() -> None:
    made = opened(pixels.normalise(file(SIXTEEN_BITS)))
    assert made.tobytes() == bytes([0, 127, 255])


def test_sixteen_bit_colours_become_eight() -> None:
    """Pillow writes no such file: one pixel of (0x1234, 0x8000, 0xFFFF) by hand."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    made = pixels.normalise(taken(data))
    assert content(made)[24] == 8
    assert opened(made).getpixel((0, 0)) == (0x12, 0x80, 0xFF)


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP"])
def test_first_frame_of_an_animation_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    animated = file(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    assert getattr(Image.open(BytesIO(content(animated))), "n_frames", 1) == 2
    made = pixels.normalise(animated)
    assert made.mime_type == "image/png"
    assert getattr(opened(made), "n_frames", 1) == 1
    assert opened(made).convert("RGB").getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=4)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated_file_is_no_picture(format: str) -> None:
    whole = file(noise((60, 60)), format)
    for share in (0.5, 0.9):
        cut = blob(content(whole)[: int(whole.length * share)])
        with pytest.raises(NotAPicture):
            pixels.normalise(Picture(cut, whole.mime_type, whole.size))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # about EXIF that is broken, too
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_file_is_a_picture_or_none(format: str, data: st.DataObject) -> None:
    options = {} if format == "GIF" else {"exif": exif(data.draw(st.integers(1, 8)))}
    whole = bytearray(encoded(noise((24, 24)), format, **options))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = pixels.normalise(taken(bytes(whole)))
    except (NotAPicture, PictureTooLarge):
        return
    assert opened(made).size == made.size


def test_transcoded_picture_may_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    small = file(Image.effect_noise((99, 99), 99), "WEBP", quality=1)
    length = pixels.normalise(small).length
    monkeypatch.setattr(pixels, "MAX_PICTURE_BYTES", length)
    assert pixels.normalise(small).length == length
    monkeypatch.setattr(pixels, "MAX_PICTURE_BYTES", length - 1)
    with pytest.raises(PictureTooLarge):
        pixels.normalise(small)


def test_a_jpeg_that_is_broken_without_its_metadata_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = file(noise((60, 60)), "JPEG", exif=exif())
    monkeypatch.setattr(pixels, "bare_jpeg", lambda whole: blob(content(whole)[: whole.length * 3 // 4]))
    with pytest.raises(NotAPicture):
        pixels.normalise(picture)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_plain_png_is_not_decoded(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = encoded(noise((9, 7), mode))
    given, turned = file(noise((9, 7), mode), exif=exif(1)), file(noise((9, 7), mode), exif=exif(3))
    monkeypatch.delattr(ImageFile.ImageFile, "load")
    monkeypatch.delattr(Image.Image, "load")
    assert content(pixels.normalise(given)) == bare
    with pytest.raises(AttributeError, match="load"):
        pixels.normalise(turned)


@pytest.mark.parametrize("about", ["Secret Name", "Secret Name" * 9])
def test_what_is_behind_a_pngs_pixels_counts_too(about: str) -> None:
    image = noise((9, 7))
    bare = encoded(image)
    upright, turned = (
        bare[:-12] + chunk(b"tEXt", b"Author\0" + about.encode()) + chunk(b"eXIf", exif(how).tobytes()[6:])
        for how in (1, 6)
    )
    assert content(pixels.normalise(taken(upright + bare[-12:]))) == bare
    made = pixels.normalise(taken(turned + bare[-12:]))
    assert same(opened(made), image.transpose(Image.Transpose.ROTATE_270))
    see_through = bare[:-12] + chunk(b"tRNS", bytes((0, 1, 0, 2, 0, 3))) + bare[-12:]
    assert opened(pixels.normalise(taken(see_through))).mode == "RGBA"


def test_a_pngs_text_is_not_taken_for_transparency() -> None:
    bare = encoded(noise((9, 7)))
    texts = chunk(b"tEXt", b"transparency\0no") + chunk(b"tEXt", b"icc_profile\0no")
    assert content(pixels.normalise(taken(bare[:33] + texts + bare[33:]))) == bare


@pytest.mark.parametrize("broken", [b"exif\0Exif", b"Raw profile type exif\0a\n1\n2\nno", b"xmp\0no"])
def test_exif_that_cannot_be_read_says_nothing(broken: bytes) -> None:
    bare = encoded(noise((9, 7)))
    assert content(pixels.normalise(taken(bare[:33] + chunk(b"tEXt", broken) + bare[33:]))) == bare


def test_a_png_is_turned_as_its_xmp_says() -> None:
    image = noise((9, 7))
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    bare = encoded(image)
    made = pixels.normalise(taken(bare[:33] + chunk(b"iTXt", xmp) + bare[33:]))
    assert same(opened(made), image.transpose(Image.Transpose.ROTATE_270))


def test_a_png_with_a_wrong_checksum_is_no_picture() -> None:
    data = bytearray(encoded(noise((9, 7))))
    data[-13] ^= 1
    with pytest.raises(NotAPicture):
        pixels.normalise(taken(bytes(data)))


# ── transcode, fit, limit ────────────────────────────────────────────────────────────────────────────────


@given(st.sampled_from(["L", "RGB", "RGBA"]), st.tuples(SIDES, SIDES))
@settings(max_examples=30, deadline=None)
def test_transcoding_to_png_loses_nothing(mode: str, size: tuple[int, int]) -> None:
    source = file(noise(size, mode), "WEBP", lossless=True, exact=True)
    made = pixels.transcode(source, "image/png")
    assert (made.mime_type, made.size) == ("image/png", size)
    assert same(opened(made), opened(source))


def test_transcoding_to_jpeg_lays_transparency_on_white() -> None:
    made = pixels.transcode(file(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), "image/jpeg")
    assert opened(made).getpixel((4, 4)) == (255, 255, 255)


def test_quality_is_heeded() -> None:
    source = file(noise((99, 99)))
    low, high = (pixels.transcode(source, "image/jpeg", quality) for quality in (10, 95))
    assert low.length < high.length / 2
    assert opened(low).format == "JPEG"


def test_picture_of_the_asked_type_is_left_alone() -> None:
    source = file(noise((9, 9)), "JPEG")
    assert pixels.transcode(source, "image/jpeg", 5) is source


@pytest.mark.parametrize("size", [(30, 30), (64, 16), (7, 99)])
def test_fit_covers_exactly_and_keeps_the_middle(size: tuple[int, int]) -> None:
    image = Image.new("RGB", (40, 40), "blue")
    image.paste("red", (15, 15, 25, 25))
    made = pixels.fit(file(image), size)
    assert made.size == opened(made).size == size
    assert opened(made).getpixel((size[0] // 2, size[1] // 2)) == pytest.approx((255, 0, 0), abs=8)


def test_limit_scales_down_only() -> None:
    source = file(noise((80, 20)))
    assert pixels.limit(source, 80) is source
    assert pixels.limit(source, 40).size == opened(pixels.limit(source, 40)).size == (40, 10)


@pytest.mark.parametrize("end", [b"\xff\x01\x00\x04\xff\xd9\xff", b"\xff\xd9\xff\xe1\xff\xff", b"\xff\xe1"])
def test_a_jpeg_may_end_in_the_middle_of_a_marker(end: bytes) -> None:
    whole = file(noise((64, 64)), "JPEG")
    normalised = pixels.normalise(taken(content(whole).removesuffix(b"\xff\xd9") + end))
    assert same(opened(normalised), opened(whole))


def test_one_large_picture_is_open_at_a_time() -> None:
    large, small = file(Image.new("1", (4001, 4000))), file(Image.new("1", (40, 40)))
    with ThreadPoolExecutor() as pool:
        with decoding._large:
            waiting = pool.submit(pixels.normalise, large)
            assert pool.submit(pixels.normalise, small).result(20).size == (40, 40)
            assert not waiting.done()
        assert waiting.result(20).size == (4001, 4000)


def test_work_on_a_large_picture_waits_for_its_turn() -> None:
    begun = threading.Event()

    @decoding.in_turn
    def work(_: Picture) -> None:
        begun.set()

    small = file(Image.new("1", (40, 40)))
    with ThreadPoolExecutor() as pool:
        with decoding._large:
            waiting = pool.submit(work, Picture(small.blob, small.mime_type, (4001, 4000)))
            assert not begun.wait(0.2)
        waiting.result(20)
    assert begun.is_set()


def test_lightening_loses_nothing_when_packing_suffices() -> None:
    source = file(Image.new("RGB", (200, 200), "teal"), compress_level=0)
    light = pixels.lighten(source, 10_000, keep_size=True)
    assert pixels.lighten(light, 10_000, keep_size=True) is light
    assert (light.mime_type, light.length <= 10_000, same(opened(light), opened(source))) == (
        "image/png",
        True,
        True,
    )


def test_lightening_keeps_the_size_and_takes_the_best_quality_that_fits() -> None:
    source = file(Image.frombytes("RGBA", (200, 150), random.Random(1).randbytes(200 * 150 * 4)))
    light, lighter = (pixels.lighten(source, most, keep_size=False) for most in (60_000, 20_000))
    assert {one.mime_type for one in (light, lighter)} == {"image/jpeg"}
    assert opened(light).size == opened(lighter).size == light.size == (200, 150)
    assert 20_000 < light.length <= 60_000
    assert lighter.length <= 20_000


@pytest.mark.parametrize(("keep_size", "size"), [(True, (202, 151)), (False, (101, 76))])
def test_a_photograph_is_lightened_to_half_its_sides_unless_its_size_matters(
    keep_size: bool, size: tuple[int, int]
) -> None:
    source = file(noise((202, 151)), "JPEG", quality=100)
    light = pixels.lighten(source, source.length // 2, keep_size=keep_size)
    assert (light.mime_type, light.size, opened(light).size) == ("image/jpeg", size, size)


def test_what_cannot_be_lightened_is_too_large_and_leaves_nothing() -> None:
    given = file(noise((200, 150)))
    with pytest.raises(PictureTooLarge):
        pixels.lighten(given, 500, keep_size=False)
    assert given.blob.scope._open == {given.blob}


def test_a_new_picture_is_in_the_scope_of_the_given_one() -> None:
    given = file(noise((30, 20), "RGBA"), exif=exif(6))
    made = [
        pixels.normalise(given),
        pixels.transcode(given, "image/jpeg"),
        pixels.fit(given, (5, 5)),
        pixels.limit(given, 5),
        *masks.compose(given, given, [given]),
    ]
    assert {one.blob.scope for one in made} == {given.blob.scope}


@pytest.mark.parametrize(
    ("mode", "format", "has_alpha"),
    [
        ("L", "PNG", False),
        ("RGB", "PNG", False),
        ("RGBA", "PNG", True),
        ("LA", "PNG", True),
        ("RGB", "JPEG", False),
    ],
)
def test_alpha_is_seen_in_the_header(mode: str, format: str, has_alpha: bool) -> None:
    assert pixels.has_alpha(file(noise((3, 2), mode), format)) == has_alpha


# ── masks ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [(40, 700), (40, 512), (99, 600), (400, 900), (7, 1)])
@pytest.mark.parametrize("edited", [(33, 71), (140, 1024), (40, 700)])
def test_an_edit_is_scaled_without_seams(size: tuple[int, int], edited: tuple[int, int]) -> None:
    """It is laid on in strips: they join, but for rounding, to what scaling it at once would give."""
    edit = Image.frombytes("RGB", edited, random.Random(1).randbytes(3 * edited[0] * edited[1]))
    white = file(Image.new("L", size, 255))
    [made] = masks.compose(file(Image.new("RGB", size)), white, [file(edit)])
    once = edit.resize((size[0], edited[1]), Image.Resampling.LANCZOS).resize(size, Image.Resampling.LANCZOS)
    assert max(ImageChops.difference(opened(made), once).tobytes()) <= 1


@given(
    mode=st.sampled_from(["L", "RGB", "RGBA"]),
    mask_mode=st.sampled_from(["1", "L", "RGB"]),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    boxes=st.lists(st.tuples(*[st.integers(0, 150)] * 2, *[st.integers(1, 90)] * 2), max_size=4),
    level=st.integers(1, 255),
    dilation=st.integers(0, 20),
    edited_size=st.tuples(SIDES, SIDES),
)
@settings(max_examples=150, deadline=None)
def test_no_pixel_outside_the_dilated_mask_changes(
    mode: str,
    mask_mode: str,
    size: tuple[int, int],
    boxes: list[tuple[int, int, int, int]],
    level: int,
    dilation: int,
    edited_size: tuple[int, int],
) -> None:
    original = noise(size, mode)
    edited = Image.eval(original.convert("RGB").resize(edited_size), lambda value: 255 - value)
    mask, allowed = Image.new("L", size), Image.new("L", size)
    for left, top, width, height in boxes:
        if left < size[0] and top < size[1]:
            right, bottom = min(left + width, size[0]), min(top + height, size[1])
            mask.paste(level, (left, top, right, bottom))
            grown = left - dilation, top - dilation, right + dilation, bottom + dilation
            allowed.paste(255, grown)
    if mask_mode == "1":
        mask = mask.point(lambda value: 255 if value else 0)
    [made] = masks.compose(file(original), file(mask.convert(mask_mode)), [file(edited)], dilation=dilation)
    expected = original if mode == "RGBA" else original.convert("RGB")
    image = opened(made)
    assert (made.mime_type, made.size, image.size, image.mode) == ("image/png", size, size, expected.mode)
    for band in range(len(expected.getbands())):
        changed = ImageChops.difference(image.getchannel(band), expected.getchannel(band))
        changed.paste(0, mask=allowed)
        assert changed.getbbox() is None


@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(0, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_whole_mask_is_edited(size: tuple[int, int], dilation: int, data: st.DataObject) -> None:
    """Too small a picture to fade in: what is masked is the edit's, pixel by pixel."""
    white = data.draw(
        st.sets(st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[1] - 1)), max_size=3)
    )
    mask = Image.new("L", size)
    for pixel in white:
        mask.putpixel(pixel, 255)
    [made] = masks.compose(
        file(Image.new("RGB", size)), file(mask), [file(Image.new("RGB", size, "white"))], dilation=dilation
    )
    near = bytes(
        255 if any(max(abs(x - at), abs(y - under)) <= dilation for at, under in white) else 0
        for y in range(size[1])
        for x in range(size[0])
    )
    assert opened(made).convert("L").tobytes() == near


def test_original_jpeg_keeps_its_decoded_pixels() -> None:
    original = file(noise((200, 100)), "JPEG")
    mask = Image.new("L", (200, 100))
    mask.paste(255, (50, 20, 150, 80))
    [made] = masks.compose(original, file(mask), [file(Image.new("RGB", (50, 25), "lime"))])
    changed = ImageChops.difference(opened(made), opened(original)).convert("L").getbbox()
    assert changed == (50, 20, 150, 80)
    assert opened(made).getpixel((100, 50)) == (0, 255, 0)
    for edge in ((50, 50), (149, 50), (100, 20), (100, 79)):
        assert opened(made).getpixel(edge) not in ((0, 255, 0), opened(original).getpixel(edge)), "fades in"


def test_thin_strokes_are_edited_too() -> None:
    mask = Image.new("L", (1000, 1000))
    mask.paste(255, (500, 0, 501, 1000))
    [made] = masks.compose(
        file(Image.new("RGB", (1000, 1000))), file(mask), [file(Image.new("RGB", (9, 9), "white"))]
    )
    assert opened(made).convert("L").getbbox() == (500, 0, 501, 1000)


def test_edit_reaches_the_picture_border_in_full() -> None:
    """Outpainting: what lies at the border has no seam there."""
    mask = Image.new("L", (400, 400))
    mask.paste(255, (0, 0, 200, 400))
    [made] = masks.compose(
        file(Image.new("RGB", (400, 400))), file(mask), [file(Image.new("RGB", (9, 9), "white"))]
    )
    image = opened(made)
    assert [image.getpixel((0, y)) for y in (0, 200, 399)] == [(255, 255, 255)] * 3
    assert image.getpixel((200, 200)) == (0, 0, 0)


def test_transparent_is_not_masked() -> None:
    mask = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    original = file(noise((20, 20)))
    [made] = masks.compose(original, file(mask), [file(Image.new("RGB", (20, 20)))])
    assert same(opened(made), opened(original))


def test_each_edit_gives_a_picture() -> None:
    white = file(Image.new("L", (10, 10), 255))
    edits = [file(Image.new("RGB", (10, 10), colour)) for colour in ("red", "lime")]
    made = masks.compose(file(noise((10, 10))), white, edits)
    assert [opened(one).getpixel((5, 5)) for one in made] == [(255, 0, 0), (0, 255, 0)]


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_work_is_done_beside_the_loop() -> None:
    assert await off_loop(threading.current_thread) is not threading.current_thread()


def test_vendors_pictures_have_no_limit_of_size() -> None:
    padded = blob(encoded(Image.new("L", (10, 10))) + b"\0" * 25_000_000)
    assert recognise(padded).size == (10, 10)
    with pytest.raises(NotAPicture):
        recognise(blob(b"<svg/>"))
