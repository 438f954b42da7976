"""Applying the caller's mask to an edit, for models that do not support masks.

Slow work on pixels: call it through `threads.off_loop`.
"""

from collections.abc import Sequence

from PIL import Image, ImageChops, ImageFilter

from app.pictures.decoding import in_turn
from app.pictures.picture import Picture
from app.pictures.pixels import decode, opaque, png

_STRIP = 256
"""Rows of a strip. Full-size copies would dominate a request's memory, so the work is done in strips."""

_FEATHER = 0.01
"""Share of the shorter side over which an edit fades in."""


@in_turn
def compose(
    original: Picture, mask: Picture, edits: Sequence[Picture], *, dilation: int = 0
) -> tuple[Picture, ...]:
    """Returns, for each edit, a PNG with the edit where the mask is not black, and the original elsewhere.

    Original and mask must be normalised. The mask is grown by `dilation` pixels in each direction. The edit
    fades in inside the mask, so outside the mask no pixel of the original changes.
    """
    fade = _fade(mask, original.size, dilation)
    base = decode(original)
    if base.mode == "L":
        base = base.convert("RGB")
    *others, last = edits
    source = original.blob
    laid = [png(_lay(base.copy(), edit, fade), source) for edit in others]
    return (*laid, png(_lay(base, last, fade), source))


def _fade(mask: Picture, size: tuple[int, int], dilation: int) -> Image.Image:
    """Returns how much of an edit is visible at each pixel: black outside the grown mask, white inside."""
    area = _area(decode(mask)).resize(size, Image.Resampling.NEAREST)
    return _feather(_grow(area, dilation), round(min(size) * _FEATHER))


def _lay(base: Image.Image, edit: Picture, fade: Image.Image) -> Image.Image:
    """Scales the edit to the size of the base, and blends it into the base in strips. Returns the base."""
    over = decode(edit).convert(base.mode)
    width, height = base.size
    # The width first, in one step: otherwise Pillow chooses for each strip which side it scales first.
    over = over.resize((width, over.height), Image.Resampling.LANCZOS)
    scale = over.height / height
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        box = (0, top * scale, width, bottom * scale)
        strip = over.resize((width, bottom - top), Image.Resampling.LANCZOS, box)
        base.paste(strip, (0, top), fade.crop((0, top, width, bottom)))
    return base


def _area(mask: Image.Image) -> Image.Image:
    """Returns an image that is white where the mask is neither black nor transparent, and black elsewhere."""
    mask = opaque(mask, "black")
    area = mask.getchannel(0)
    for channel in range(1, len(mask.getbands())):
        area = ImageChops.lighter(area, mask.getchannel(channel))
    return area.point(lambda level: 255 if level else 0)


def _grow(area: Image.Image, radius: int) -> Image.Image:
    """Returns the area with everything white within `radius` pixels of white, along both axes.

    It overlays shifted copies, and doubles the shift in each step: a rank filter would take minutes.
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
    """Returns the area without its outermost `radius` pixels. The image's border does not count as an
    edge."""
    return ImageChops.invert(_grow(ImageChops.invert(area), radius))


def _feather(area: Image.Image, radius: int) -> Image.Image:
    """Returns the area with soft edges: black outside, rising to white inside. Thin strokes stay white."""
    core = _shrink(area, radius)
    thin = ImageChops.subtract(area, _grow(core, radius))
    rising = ImageChops.darker(core.filter(ImageFilter.BoxBlur(radius)), area)
    return ImageChops.lighter(rising, thin)
