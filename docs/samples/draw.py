"""Draws the pictures of this folder: `.venv/bin/python docs/samples/draw.py`. They are free for any use.

person.png     768 x 1024   a person to dress, or to put into another picture
jacket.png     768 x 768    a garment
teapot.png     768 x 768    a product
room.jpg       1024 x 768   a scene, of a size that /gen accepts for img2img
room-mask.png  1024 x 768   its mask: white on the empty wall over the sofa
"""

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

HERE = Path(__file__).parent
SCALE = 3
"""Shapes are drawn three times as large and then reduced, which smooths their edges."""

Point = tuple[float, float]
Colour = str | tuple[int, int, int]


class Canvas:
    """A picture. Coordinates are those of the finished file."""

    def __init__(self, width: int, height: int, top: Colour, bottom: Colour) -> None:
        self.size = width * SCALE, height * SCALE
        self.image = gradient(self.size, top, bottom)

    def shape(self, fill: Colour, *, shade: float = 0.0) -> "Shape":
        """Returns a shape to draw on. `shade` (0 to 1) darkens its right side."""
        return Shape(self, fill, shade)

    def blurred(
        self, box: tuple[float, float, float, float], colour: Colour, opacity: int, radius: float
    ) -> None:
        """Draw a soft ellipse: a shadow, or light."""
        mask = Image.new("L", self.size)
        ImageDraw.Draw(mask).ellipse([side * SCALE for side in box], fill=opacity)
        mask = mask.filter(ImageFilter.GaussianBlur(radius * SCALE))
        self.image.paste(Image.new("RGB", self.size, colour), mask=mask)

    def finished(self) -> Image.Image:
        width, height = self.size
        return self.image.resize((width // SCALE, height // SCALE), Image.Resampling.LANCZOS)


class Shape:
    """A surface of one colour: add figures, then leave the `with` block."""

    def __init__(self, canvas: Canvas, fill: Colour, shade: float) -> None:
        self._canvas, self._fill, self._shade = canvas, fill, shade
        self._mask = Image.new("L", canvas.size)
        self._draw = ImageDraw.Draw(self._mask)

    def __enter__(self) -> "Shape":
        return self

    def __exit__(self, *_: object) -> None:
        box = self._mask.getbbox()
        if box is None:
            return
        paint = Image.new("RGB", self._canvas.size, self._fill)
        if self._shade:
            dark = Image.new("RGB", self._canvas.size, "#101828")
            side = Image.new("L", self._canvas.size)
            ramp = Image.linear_gradient("L").rotate(90).resize((box[2] - box[0], box[3] - box[1]))
            side.paste(ramp.point(lambda value: round(value * self._shade)), box[:2])
            paint = Image.composite(dark, paint, side)
        self._canvas.image.paste(paint, mask=self._mask)

    def polygon(self, *points: Point) -> None:
        """A polygon with rounded corners: each side bends through its middle."""
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in smooth(points)], fill=255)

    def edges(self, *points: Point) -> None:
        """A polygon with straight sides."""
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=255)

    def ellipse(self, *box: float) -> None:
        self._draw.ellipse([side * SCALE for side in box], fill=255)

    def block(self, left: float, top: float, right: float, bottom: float, radius: float = 0) -> None:
        box = [side * SCALE for side in (left, top, right, bottom)]
        self._draw.rounded_rectangle(box, radius * SCALE, fill=255)

    def line(self, width: float, *points: Point) -> None:
        """A line with round ends and joints."""
        dots = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(dots, fill=255, width=round(width * SCALE), joint="curve")
        reach = width * SCALE / 2
        for x, y in (dots[0], dots[-1]):
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)


def smooth(points: Sequence[Point], rounds: int = 4) -> list[Point]:
    """Chaikin's corner cutting."""
    corners = list(points)
    for _ in range(rounds):
        cut: list[Point] = []
        for (x, y), (next_x, next_y) in zip(corners, [*corners[1:], corners[0]], strict=True):
            cut.append((x * 0.75 + next_x * 0.25, y * 0.75 + next_y * 0.25))
            cut.append((x * 0.25 + next_x * 0.75, y * 0.25 + next_y * 0.75))
        corners = cut
    return corners


def gradient(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    ramp = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), ramp)


def grain(image: Image.Image, strength: int) -> Image.Image:
    """Returns the picture with noise like a photograph's. The noise is the same in every run."""
    dice = random.Random(8)  # noqa: S311 - decoration
    pixels = bytes(128 + dice.randint(-strength, strength) for _ in range(image.width * image.height))
    noise = Image.frombytes("L", image.size, pixels).convert("RGB")
    return ImageChops.add(image, noise, offset=-128)


def person() -> Image.Image:
    canvas = Canvas(768, 1024, "#dfe5ea", "#b9c4cd")
    canvas.blurred((200, 960, 570, 1015), "#39434d", 150, 14)
    with canvas.shape("#2f4a6d", shade=0.45) as trousers:
        trousers.edges((300, 560), (468, 560), (474, 720), (450, 975), (398, 975), (386, 700))
        trousers.edges((300, 560), (390, 600), (380, 720), (366, 975), (314, 975), (292, 720))
    with canvas.shape("#f4f1ea", shade=0.15) as shoes:
        shoes.polygon((306, 966), (368, 962), (376, 1004), (276, 1004), (286, 984))
        shoes.polygon((398, 962), (458, 966), (484, 986), (494, 1004), (394, 1004))
    with canvas.shape("#d79b77", shade=0.25) as arms:
        arms.line(40, (270, 400), (246, 500), (252, 590))
        arms.line(40, (498, 400), (522, 500), (516, 590))
        arms.ellipse(230, 575, 274, 640)
        arms.ellipse(494, 575, 538, 640)
        arms.block(352, 236, 416, 330, 20)
    with canvas.shape("#f3efe6", shade=0.28) as shirt:
        shirt.polygon(
            (352, 300), (300, 312), (252, 338), (232, 440), (286, 456), (300, 430), (296, 596), (384, 604),
            (472, 596), (468, 430), (482, 456), (536, 440), (516, 338), (468, 312), (416, 300), (384, 326),
        )  # fmt: skip
    with canvas.shape("#4a2f22") as hair:
        hair.ellipse(300, 78, 468, 262)
        hair.polygon(
            (300, 150), (292, 290), (340, 330), (350, 200), (420, 200), (428, 330), (476, 290), (468, 150)
        )
    with canvas.shape("#dfa680", shade=0.22) as head:
        head.block(352, 232, 416, 316, 26)
        head.polygon((322, 130), (446, 130), (452, 210), (424, 268), (384, 284), (344, 268), (316, 210))
    with canvas.shape("#4a2f22") as fringe:
        fringe.polygon(
            (312, 176), (318, 108), (384, 84), (452, 108), (458, 180), (440, 146), (400, 128), (340, 146)
        )
        fringe.line(5, (340, 174), (353, 169), (366, 172))
        fringe.line(5, (404, 172), (417, 169), (430, 174))
    with canvas.shape("#2b2b33") as eyes:
        eyes.ellipse(348, 186, 362, 200)
        eyes.ellipse(408, 186, 422, 200)
    with canvas.shape("#b9755a") as nose:
        nose.line(4, (385, 200), (380, 222), (390, 224))
    with canvas.shape("#b4524e") as mouth:
        mouth.polygon((360, 242), (384, 246), (408, 242), (398, 258), (370, 258))
    return canvas.finished()


def jacket() -> Image.Image:
    canvas = Canvas(768, 768, "#fbfbfa", "#eceae6")
    canvas.blurred((170, 660, 600, 720), "#4a4a4a", 90, 16)
    with canvas.shape("#a8322d", shade=0.35) as sleeves:
        sleeves.polygon((232, 170), (160, 240), (112, 560), (122, 640), (196, 640), (236, 430), (280, 260))
        sleeves.polygon((536, 170), (608, 240), (656, 560), (646, 640), (572, 640), (532, 430), (488, 260))
    with canvas.shape("#c23b34", shade=0.35) as body:
        body.polygon(
            (300, 130),
            (216, 172),
            (236, 400),
            (224, 690),
            (384, 700),
            (544, 690),
            (532, 400),
            (552, 172),
            (468, 130),
            (384, 190),
        )
    with canvas.shape("#8b2723", shade=0.2) as trim:
        trim.block(222, 660, 546, 700, 12)
        trim.block(120, 606, 206, 646, 12)
        trim.block(562, 606, 648, 646, 12)
        trim.polygon((296, 128), (330, 98), (438, 98), (472, 128), (452, 170), (384, 214), (316, 170))
    with canvas.shape("#3b1512") as lining:
        lining.polygon((330, 120), (438, 120), (420, 152), (384, 186), (348, 152))
    with canvas.shape("#e8c9a0") as seams:
        seams.line(5, (384, 200), (384, 694))
        seams.line(3, (268, 480), (336, 520))
        seams.line(3, (500, 480), (432, 520))
        seams.block(376, 232, 392, 262, 5)
    for top in range(214, 690, 12):
        with canvas.shape("#7d6a4d") as tooth:
            tooth.line(2, (379, top), (389, top))
    return canvas.finished()


def teapot() -> Image.Image:
    canvas = Canvas(768, 768, "#f6f4f0", "#e3ded5")
    canvas.blurred((150, 600, 640, 690), "#40382e", 140, 20)
    with canvas.shape("#17655f", shade=0.3) as handle:
        handle.ellipse(506, 280, 686, 540)
    with canvas.shape("#ece8e1") as hole:
        hole.ellipse(540, 320, 650, 500)
    with canvas.shape("#1f7f77", shade=0.35) as spout:
        spout.polygon(
            (250, 420),
            (160, 380),
            (92, 270),
            (60, 262),
            (66, 236),
            (130, 240),
            (190, 320),
            (270, 360),
            (260, 540),
            (180, 500),
        )
    with canvas.shape("#22938a", shade=0.6) as body:
        body.polygon(
            (250, 290),
            (200, 360),
            (180, 480),
            (230, 610),
            (310, 656),
            (460, 656),
            (540, 610),
            (590, 480),
            (570, 360),
            (520, 290),
            (384, 262),
        )
    with canvas.shape("#1a6f68", shade=0.4) as foot:
        foot.block(290, 640, 480, 664, 12)
    with canvas.shape("#28a297", shade=0.5) as lid:
        lid.polygon((262, 296), (290, 250), (340, 228), (430, 228), (480, 250), (508, 296), (384, 312))
        lid.ellipse(352, 176, 418, 240)
    with canvas.shape("#e9c46a") as band:
        band.line(7, (206, 440), (290, 462), (384, 468), (480, 462), (566, 440))
        band.line(3, (204, 460), (290, 482), (384, 488), (480, 482), (568, 460))
    canvas.blurred((246, 320, 330, 430), "#ffffff", 120, 16)
    canvas.blurred((366, 184, 388, 206), "#ffffff", 170, 4)
    return canvas.finished()


def room() -> Image.Image:
    canvas = Canvas(1024, 768, "#e9dfcf", "#d9cbb6")
    with canvas.shape("#a9825d") as floor:
        floor.edges((0, 560), (1024, 560), (1024, 768), (0, 768))
    for x in range(-900, 2000, 120):
        with canvas.shape("#957050") as board:
            board.line(2, (512 + (x - 512) * 0.55, 560), (x, 768))
    with canvas.shape("#f7f3ec") as skirting:
        skirting.block(0, 546, 1024, 564)
    with canvas.shape("#f8f6f1") as frame:
        frame.block(46, 70, 286, 400, 4)
    canvas.image.paste(gradient((208 * SCALE, 298 * SCALE), "#8fc4e8", "#e6f1ea"), (62 * SCALE, 86 * SCALE))
    with canvas.shape("#7fa66a") as hills:
        hills.polygon((62, 384), (62, 320), (130, 290), (190, 322), (270, 300), (270, 384))
        hills.edges((62, 330), (270, 330), (270, 384), (62, 384))
    with canvas.shape("#f8f6f1") as bars:
        bars.block(160, 80, 172, 390)
        bars.block(56, 226, 280, 238)
        bars.block(36, 392, 296, 408, 3)
    canvas.blurred((250, 590, 900, 720), "#33261a", 110, 24)
    with canvas.shape("#c9b08c") as rug:
        rug.ellipse(150, 612, 900, 756)
    with canvas.shape("#b3976f") as ring:
        ring.ellipse(190, 624, 860, 744)
    with canvas.shape("#d4bd9b") as middle:
        middle.ellipse(206, 630, 844, 738)
    with canvas.shape("#4b6b63", shade=0.3) as sofa:
        sofa.block(372, 392, 820, 560, 34)
        sofa.block(340, 452, 430, 640, 34)
        sofa.block(762, 452, 852, 640, 34)
        sofa.block(372, 540, 820, 640, 16)
    with canvas.shape("#5b8077", shade=0.25) as cushions:
        cushions.block(424, 500, 594, 578, 22)
        cushions.block(598, 500, 768, 578, 22)
    with canvas.shape("#d98f4e", shade=0.3) as pillow:
        pillow.polygon((440, 430), (530, 420), (540, 510), (446, 518))
    with canvas.shape("#3b2b20") as legs:
        legs.edges((380, 638), (400, 638), (394, 672), (384, 672))
        legs.edges((792, 638), (812, 638), (808, 672), (798, 672))
    with canvas.shape("#8a6a4a") as stand:
        stand.block(922, 300, 930, 640)
        stand.block(890, 634, 962, 646, 6)
    canvas.blurred((830, 120, 1024, 420), "#fff3cf", 90, 40)
    with canvas.shape("#f6e7c3", shade=0.15) as shade:
        shade.edges((886, 196), (966, 196), (996, 310), (856, 310))
    canvas.blurred((60, 560, 420, 700), "#fff6dd", 70, 34)
    return grain(canvas.finished().filter(ImageFilter.GaussianBlur(0.6)), 5)


def room_mask() -> Image.Image:
    """Returns a mask that is white on the empty wall over the sofa."""
    mask = Image.new("L", (1024, 768))
    ImageDraw.Draw(mask).rectangle((430, 110, 770, 350), fill=255)
    return mask


def main() -> None:
    for name, picture in {"person": person(), "jacket": jacket(), "teapot": teapot()}.items():
        picture.save(HERE / f"{name}.png", optimize=True)
    room().save(HERE / "room.jpg", quality=85, optimize=True)
    room_mask().save(HERE / "room-mask.png", optimize=True)


if __name__ == "__main__":
    main()
