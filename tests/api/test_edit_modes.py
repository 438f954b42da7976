"""The pictures of the four edit modes, by an Imagen model and by the Gemini model that succeeds it."""

from collections.abc import Iterator
from itertools import combinations

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from app.emulator.server import Emulator
from tests.api.conftest import Client, Start, client_of
from tools.rig.bodies import MODELS, as_json, body, encoded, opened, path

MODES = ("INPAINT_REMOVAL", "INPAINT_INSERTION", "BGSWAP", "OUTPAINT")
SIZE = (256, 192)
AREA = (64, 48, 192, 144)


def scene() -> Image.Image:
    picture = Image.new("RGB", SIZE, "steelblue")
    ImageDraw.Draw(picture).ellipse((80, 60, 176, 132), "red")
    return picture


def mask() -> Image.Image:
    picture = Image.new("L", SIZE)
    picture.paste(255, AREA)
    return picture


@pytest.fixture(scope="module", params=["imagen", "gemini"])
def gateway(request: pytest.FixtureRequest, start: Start) -> Iterator[tuple[Client, str]]:
    with start() as url:
        client = client_of(url)
        yield client, request.param
        client.http.close()


def test_each_mode_has_its_own_look_under_the_mask(gateway: tuple[Client, str], emulator: Emulator) -> None:
    client, family = gateway
    if family == "gemini":
        emulator.troubles.set("retired", model=MODELS["image-edit"])
    made = {mode: edited(client, mode, family) for mode in MODES}
    for mode, picture in made.items():
        changed = ImageChops.difference(picture, scene())
        changed.paste("black", AREA)
        assert changed.getbbox() is None, f"{mode} changes pixels outside the mask"
    inside = {mode: picture.crop(AREA) for mode, picture in made.items()}
    for one, other in combinations(MODES, 2):
        assert sum(ImageStat.Stat(ImageChops.difference(inside[one], inside[other])).mean) > 20, (one, other)
    removed = ImageChops.difference(
        inside["INPAINT_REMOVAL"], Image.new("RGB", inside["BGSWAP"].size, "steelblue")
    )
    assert max(ImageStat.Stat(removed.crop((4, 4, 124, 50))).mean) < 12, (
        "what was red is blue like its surroundings"
    )


def edited(client: Client, mode: str, family: str) -> Image.Image:
    wish = body("image-edit", editMode=f"EDIT_MODE_{mode}", sampleCount=1)
    for reference, picture in zip(wish["referenceImages"], (scene(), mask()), strict=True):
        reference["bytesBase64Encoded"] = encoded(picture)
    wish["referenceImages"][1]["maskImageConfig"]["dilation"] = 0
    told = client.post(path("image-edit"), as_json(wish)).json()
    assert told["model"].startswith(family), told
    return opened(told["predictions"][0]["bytesBase64Encoded"]).convert("RGB")
