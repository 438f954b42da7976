"""Putting an edit under the caller's mask, for models that know no masks.

Slow work on pixels: call it through `threads.off_loop`.
"""

from collections.abc import Sequence

from PIL import Image, ImageChops, ImageFilter

from app.pictures.decoding import in_turn
from app.pictures.picture import Picture
from app.pictures.pixels import decode, opaque, png

_STRIP = 256
"""Rows that are worked on at once: whole pictures of working copies would be what a request holds most of."""

_FEATHER = 0.01
"""Share of the shorter side over which an edit fades in."""


@in_turn
def compose(
    original: Picture, mask: Picture, edits: Sequence[Picture], *, dilation: int = 0
) -> tuple[Picture, ...]:
    """For each edit the original with the edit where the mask is not black, as a PNG of the original's size.

    Original and mask are normalised. The mask is first grown by `dilation` pixels in each direction. The edit
    fades in inside the mask: outside it every pixel is the original's.
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
    """How much of an edit shows where: from black outside the grown mask to white inside."""
    area = _area(decode(mask)).resize(size, Image.Resampling.NEAREST)
    return _feather(_grow(area, dilation), round(min(size) * _FEATHER))


def _lay(base: Image.Image, edit: Picture, fade: Image.Image) -> Image.Image:
    """The edit, scaled to the base's size, is faded into it, a strip at a time."""
    over = decode(edit).convert(base.mode)
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
    mask = opaque(mask, "black")
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
