"""The emulator's pictures: real pixels, marked EMULATED, always the same for the same prompt and seed.

All functions are pure; pictures are Pillow images in mode RGB, masks in mode L (255 = may be repainted).
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

Size = tuple[int, int]
MARK = "EMULATED"

_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}


def paint(prompt: str, size: Size, *, seed: int = 0, marked: bool = True) -> Image.Image:
    """Paints colours and shapes that depend on prompt and seed, and writes the prompt on them."""
    tones = noise(prompt, seed)
    picture = Image.frombytes("RGB", (4, 4), tones[:48]).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    width, height = size
    for at in range(48, 64, 4):
        x, y, radius, colour = tones[at : at + 4]
        middle_x, middle_y, reach = x * width // 255, y * height // 255, (20 + radius) * min(size) // 1200
        box = (middle_x - reach, middle_y - reach, middle_x + reach, middle_y + reach)
        draw.ellipse(box, fill=(colour, tones[at - 48], tones[at - 47]))
    return _mark(picture, prompt) if marked else picture


def mix(source: Image.Image, prompt: str, similarity: float, seed: int) -> Image.Image:
    """Paints over the source, for image-to-image. `similarity` 1 keeps the source, 0 ignores it."""
    painted = paint(prompt, source.size, seed=seed)
    return _mark(blend(painted, source.convert("RGB"), similarity), prompt)


def upscale(source: Image.Image, factor: int) -> Image.Image:
    """Enlarges each side `factor` times, and writes the factor on the picture."""
    size = source.width * factor, source.height * factor
    picture = source.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    letters = max(8, size[0] // 24)
    return write(picture, (MARK, f"x{factor}"), (size[0] // 40, 3 * letters), letters)


def repaint(source: Image.Image, mask: Image.Image, prompt: str, *, seed: int = 0) -> Image.Image:
    """Paints wherever the mask is not black. No pixel outside the mask changes."""
    painted = paint(prompt, source.size, seed=seed)
    return Image.composite(painted, source.convert("RGB"), solid(mask))


def dilate(mask: Image.Image, share: float) -> Image.Image:
    """Returns a solid mask, grown on all sides by `share` (0 to 1) of its longer side."""
    mask = solid(mask)
    reach = round(share * max(mask.size))
    if reach == 0:
        return mask
    grown, done = ImageOps.expand(mask, border=reach, fill=0), 0
    while done < reach:  # shift as far as possible without a gap: exact, in log3(reach) rounds
        step = min(reach - done, 2 * done + 1)
        for x, y in ((step, 0), (0, step)):
            shifted = ImageChops.lighter(ImageChops.offset(grown, x, y), ImageChops.offset(grown, -x, -y))
            grown = ImageChops.lighter(grown, shifted)
        done += step
    return ImageOps.crop(grown, border=reach)


def guess_mask(size: Size, part: Literal["foreground", "background"]) -> Image.Image:
    """Returns a stand-in for a mask that the service computes: every subject is an ellipse in the middle."""
    width, height = size
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill=255)
    return mask if part == "foreground" else ImageOps.invert(mask)


def guess_classes(size: Size, classes: Sequence[int]) -> Image.Image:
    """Returns a stand-in for the mask of semantic classes: each class has a fixed area."""
    width, height = size
    mask = Image.new("L", size, 0)
    for each in classes:
        column, row = each % 4, each // 4 % 4
        box = (column * width // 4, row * height // 4, (column + 1) * width // 4, (row + 1) * height // 4)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask


def try_on(person: Image.Image, products: Sequence[Image.Image], *, seed: int = 0) -> Image.Image:
    """Lays the products over the person's torso, the first one at the top."""
    picture = person.convert("RGB")
    width, height = picture.size
    torso = max(1, width // 2), max(1, height // (2 * len(products)))
    for place, product in enumerate(products):
        worn = ImageOps.contain(product.convert("RGB"), torso)
        picture.paste(worn, ((width - worn.width) // 2, height // 4 + place * torso[1]))
    return tint(_mark(picture, ""), seed)


def recontext(products: Sequence[Image.Image], prompt: str, size: Size, *, seed: int = 0) -> Image.Image:
    """Paints a scene with the products side by side."""
    return _mark(_stand(paint(prompt, size, seed=seed), products), prompt)


def redraw(sources: Sequence[Image.Image], prompt: str, size: Size, *, seed: int = 0) -> Image.Image:
    """Stretches the first picture to `size`, paints over all of it, and puts the others on it."""
    picture = mix(sources[0].convert("RGB").resize(size), prompt, 0.5, seed)
    return _mark(_stand(picture, sources[1:]), prompt)


def encode(image: Image.Image, mime_type: str = "image/png", quality: int = 75) -> bytes:
    """Returns the file's bytes. `quality` (0 to 100) is for JPEG and WebP."""
    out = BytesIO()
    image.save(out, _FORMATS[mime_type], quality=max(quality, 1), compress_level=1)
    return out.getvalue()


def noise(prompt: str, seed: int) -> bytes:
    """Returns 64 bytes that depend on prompt and seed."""
    return hashlib.blake2b(f"{seed} {prompt}".encode(errors="backslashreplace"), digest_size=64).digest()


def _stand(scene: Image.Image, products: Sequence[Image.Image]) -> Image.Image:
    width, height = scene.size
    room = max(1, width // (len(products) + 1)), max(1, height // 2)
    for place, product in enumerate(products, start=1):
        standing = ImageOps.contain(product.convert("RGB"), room)
        middle = width * place // (len(products) + 1)
        scene.paste(standing, (middle - standing.width // 2, height - height // 8 - standing.height))
    return scene


def _mark(picture: Image.Image, prompt: str) -> Image.Image:
    """Writes the mark and the beginning of the prompt along the lower edge."""
    width, height = picture.size
    return write(picture, (MARK, prompt), (width // 40, height), max(8, width // 24))


def write(picture: Image.Image, lines: Sequence[str], corner: Size, letters: int) -> Image.Image:
    """Writes lines of `letters` pixels in height; `corner` is the lower left corner of the text."""
    left, bottom = corner
    outline = max(1, letters // 12)
    draw = ImageDraw.Draw(picture)
    for line, text in enumerate(lines):
        readable = " ".join(text.encode("utf-8", "replace").decode().split())[:60]
        place = left, bottom - (len(lines) - line) * letters * 5 // 4
        draw.text(place, readable, "white", _font(letters), stroke_width=outline, stroke_fill="black")
    return picture


def text_width(text: str, letters: int) -> float:
    """Returns the width of a line in pixels."""
    return _font(letters).getlength(text)


@lru_cache(maxsize=32)
def _font(letters: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(letters)


def solid(mask: Image.Image) -> Image.Image:
    """Returns a mask that is white wherever `mask` is not black."""
    return mask.convert("L").point(lambda value: 255 if value else 0)


def tint(picture: Image.Image, seed: int, share: float = 0.06) -> Image.Image:
    """Tints a picture by its seed, so that the samples of one request differ a little."""
    colour = tuple(noise("", seed)[:3])
    return blend(picture, Image.new("RGB", picture.size, colour), share)


def blend(under: Image.Image, over: Image.Image, share: float) -> Image.Image:
    """Mixes in `share` (0 to 1) of `over`. Unlike Image.blend it releases the GIL."""
    return Image.composite(over, under, Image.new("L", under.size, round(share * 255)))
