"""Masked edits: four tasks whose results look clearly different.

All functions are pure; pictures are Pillow images in mode RGB, masks in mode L. A removal takes about 0.2 s
per megapixel.
"""

import hashlib
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps, ImageStat

from app.emulator.painter import MARK, Size, blend, noise, paint, solid, text_width, write

Task = Literal["removal", "insertion", "background", "outpaint"]
_CELLS = 16
_GRAIN = 3


def edit(task: Task, source: Image.Image, mask: Image.Image, prompt: str, *, seed: int = 0) -> Image.Image:
    """Does the task wherever the mask is not black. No pixel outside the mask changes.

    A removal fills the area with the colours around it. An insertion puts a painted object there. A
    background swap paints a landscape. Outpainting continues the colours of the picture and adds shapes. The
    task and the prompt are written inside the area if there is room.
    """
    source, area = source.convert("RGB"), solid(mask)
    match task:
        case "removal":
            made = _fill(source, area)
        case "insertion":
            made = _put_object(_fill(source, area), area, prompt, seed)
        case "background":
            made = _landscape(prompt, source.size, seed)
        case "outpaint":
            shapes = paint(prompt, source.size, seed=seed, marked=False)
            made = blend(_fill(source, area), shapes, 0.35)
    made = _grain(made, seed)
    _caption(made, area, task, prompt)
    return Image.composite(made, source, area)


def _fill(source: Image.Image, area: Image.Image) -> Image.Image:
    """Fills the area with the colours around it.

    The known pixels are averaged into pictures of half the size, again and again, until one has no hole left.
    Then, from small to large, the holes of each picture take the smoothed colours of the next smaller one.
    """
    known = ImageChops.invert(area)
    if known.getbbox() is None:
        return Image.new("RGB", source.size, tuple(map(round, ImageStat.Stat(source).mean)))
    levels = [(source, known)]
    while levels[-1][1].getextrema()[0] == 0:
        levels.append(_halve(*levels[-1]))
    filled = levels.pop()[0]
    for picture, known in reversed(levels):
        filled = Image.composite(picture, filled.resize(picture.size, Image.Resampling.BILINEAR), known)
        for _ in range(2):
            filled = Image.composite(picture, filled.filter(ImageFilter.BoxBlur(1)), known)
    return filled


def _halve(picture: Image.Image, known: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Returns both at half the size. A pixel is known if at least one of its four was: their average."""
    size = (picture.width + 1) // 2, (picture.height + 1) // 2
    weighted = picture.copy()
    weighted.putalpha(known)
    smaller = weighted.resize(size, Image.Resampling.BOX)  # colours are weighted by alpha
    return smaller.convert("RGB"), solid(smaller.getchannel("A"))


def _put_object(scene: Image.Image, area: Image.Image, prompt: str, seed: int) -> Image.Image:
    """Paints an object with an outline and a shadow, as large as the area allows."""
    left, top, right, bottom = area.getbbox() or (0, 0, 1, 1)
    inset_x, inset_y, weight = (right - left) // 10, (bottom - top) // 10, max(1, min(scene.size) // 128)
    box = (
        *(left + inset_x, top + inset_y),
        *(max(left + inset_x, right - inset_x - 1), max(top + inset_y, bottom - 2 * inset_y - 1)),
    )
    kind = noise(prompt, seed)[0] % 3
    shape, edge = Image.new("L", scene.size, 0), Image.new("L", scene.size, 0)
    _draw_shape(shape, box, kind, fill=255)
    _draw_shape(edge, box, kind, outline=255, width=weight)
    shadow = ImageChops.offset(shape, inset_x // 2, inset_y).filter(ImageFilter.GaussianBlur(2 * weight))
    dark = Image.new("RGB", scene.size, "black")
    scene = Image.composite(dark, scene, shadow.point(lambda value: value // 2))
    painted = Image.composite(paint(prompt, scene.size, seed=seed, marked=False), scene, shape)
    return Image.composite(dark, painted, edge)


def _draw_shape(
    on: Image.Image,
    box: tuple[int, int, int, int],
    kind: int,
    *,
    fill: int | None = None,
    outline: int | None = None,
    width: int = 1,
) -> None:
    pen, (left, top, right, bottom) = ImageDraw.Draw(on), box
    if kind == 0:
        pen.ellipse(box, fill, outline, width)
    elif kind == 1:
        pen.rounded_rectangle(box, min(right - left, bottom - top) // 5, fill, outline, width)
    else:
        pen.polygon([((left + right) // 2, top), (right, bottom), (left, bottom)], fill, outline, width)


def _landscape(prompt: str, size: Size, seed: int) -> Image.Image:
    """Paints sky, sun, hills and ground in colours that depend on prompt and seed."""
    width, height = size
    tones = noise(prompt, seed)
    high, low, ground = ((tones[at] // 2, tones[at + 1] // 2, 120 + tones[at + 2] // 2) for at in (0, 3, 6))
    sky = ImageOps.colorize(
        Image.linear_gradient("L").resize(size), high, (low[2], low[1] + 100, low[0] + 120)
    )
    pen, horizon = ImageDraw.Draw(sky), height * (55 + tones[9] % 20) // 100
    reach, sun = min(size) // 10, width * (15 + tones[10] % 70) // 100
    pen.ellipse((sun - reach, height // 6 - reach, sun + reach, height // 6 + reach), fill=(255, 240, 180))
    for hill in range(3):
        middle, wide, tall = (tones[11 + 3 * hill + n] for n in range(3))
        middle, wide, tall = middle * width // 255, (40 + wide) * width // 400, (40 + tall) * height // 1000
        colour = tuple(tone * (4 + hill) // 8 for tone in (ground[0] + 60, ground[2], ground[1]))
        pen.ellipse((middle - wide, horizon - tall, middle + wide, horizon + tall), fill=colour)
    pen.rectangle((0, horizon, width, height), fill=(ground[0] + 40, ground[2] * 3 // 4, ground[1] // 2))
    return sky


def _grain(picture: Image.Image, seed: int) -> Image.Image:
    """Adds a little film grain, so that the samples of one request differ."""
    width, height = picture.size
    shades = Image.frombytes("L", picture.size, hashlib.shake_128(str(seed).encode()).digest(width * height))
    shades = shades.point(lambda value: value % (2 * _GRAIN + 1))
    return ImageChops.add(picture, Image.merge("RGB", [shades] * 3), 1, -_GRAIN)


def _caption(picture: Image.Image, area: Image.Image, task: Task, prompt: str) -> None:
    """Writes task and prompt low in the area, where it is wide enough. Leaves out text that does not fit."""
    left, top, right, bottom = area.getbbox() or (0, 0, 1, 1)
    cells = area.crop((left, top, right, bottom)).resize((_CELLS, _CELLS), Image.Resampling.BOX)
    runs = [_longest_run(cells.crop((0, row, _CELLS, row + 1)).tobytes()) for row in range(_CELLS)]
    wide_enough = max(length for _, length in runs) * 0.6
    row, (start, length) = next(
        (row, run) for row, run in reversed(list(enumerate(runs))) if run[1] >= wide_enough
    )
    room = length * (right - left) // _CELLS
    letters = min(max(8, picture.width // 24), room // 5)
    if letters < 8:
        return
    text = f"{task}: {prompt}"[:60]
    corner = (
        left + start * (right - left) // _CELLS + letters // 2,
        top + (row + 1) * (bottom - top) // _CELLS,
    )
    write(picture, (MARK, text if prompt and text_width(text, letters) < room else task), corner, letters)


def _longest_run(cells: bytes) -> tuple[int, int]:
    """Returns start and length of the longest run of cells that lie completely in the area."""
    best, start = (0, 0), 0
    for at, value in enumerate((*cells, 0)):
        if value < 255:
            best, start = max(best, (start, at - start), key=lambda run: run[1]), at + 1
    return best
