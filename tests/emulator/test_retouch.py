"""Masked edits keep to the mask, depend on prompt and seed only, and look different from one another."""

from itertools import combinations
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw, ImageStat

from app.emulator.painter import paint
from app.emulator.retouch import Task, edit
from tests.emulator.test_painter import masks

TASKS: tuple[Task, ...] = get_args(Task)
GRAIN = 3


def street(size: tuple[int, int]) -> Image.Image:
    """A grey gradient with a red object in the middle."""
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    width, height = size
    ImageDraw.Draw(picture).rectangle(
        (width * 3 // 8, height * 3 // 8, width * 5 // 8, height * 5 // 8), "red"
    )
    return picture


def middle(size: tuple[int, int]) -> Image.Image:
    """A mask a little larger than the red."""
    mask, (width, height) = Image.new("L", size), size
    ImageDraw.Draw(mask).rectangle((width // 3, height // 3, width * 2 // 3, height * 2 // 3), fill=1)
    return mask


def box(mask: Image.Image) -> tuple[int, int, int, int]:
    found = mask.getbbox()
    assert found is not None
    return found


@settings(max_examples=100, deadline=None)
@given(task=st.sampled_from(TASKS), mask=masks(), prompt=st.text(max_size=20))
def test_no_pixel_outside_the_mask_changes(task: Task, mask: Image.Image, prompt: str) -> None:
    source = paint("before", mask.size)
    made = edit(task, source, mask, prompt, seed=1)
    outside = mask.point(lambda value: 0 if value else 255)
    changed = ImageChops.difference(made, source)
    assert (made.size, made.mode) == (source.size, "RGB")
    assert Image.composite(changed, Image.new("RGB", mask.size), outside).getbbox() is None


@pytest.mark.parametrize("task", TASKS)
def test_an_edit_is_the_same_for_the_same_prompt_and_seed(task: Task) -> None:
    size = (200, 100)
    first, second, other = (edit(task, street(size), middle(size), "a pear", seed=seed) for seed in (7, 7, 8))
    assert first.tobytes() == second.tobytes() != other.tobytes()


def test_the_tasks_differ() -> None:
    size = (300, 300)
    made = {task: edit(task, street(size), middle(size), "a pear").crop(box(middle(size))) for task in TASKS}
    for one, other in combinations(TASKS, 2):
        assert sum(ImageStat.Stat(ImageChops.difference(made[one], made[other])).mean) > 20, (one, other)


@pytest.mark.parametrize("size", [(64, 64), (61, 97)])
def test_a_removal_has_the_colours_around_it(size: tuple[int, int]) -> None:
    """No red is left, and no grey that is not at the rim. (The caption does not fit here.)"""
    left, top, right, bottom = box(middle(size))
    made = edit("removal", street(size), middle(size), "the red thing")
    rim = street(size).convert("L").crop((left - 1, top - 1, left, bottom + 1)).tobytes()
    levels = made.crop((left, top, right, bottom)).tobytes()  # of all three channels
    assert min(rim) - GRAIN <= min(levels) < max(levels) <= max(rim) + GRAIN


def test_a_removal_goes_on_with_the_slope_around_it() -> None:
    size = (64, 64)
    left, top, right, bottom = box(middle(size))
    filled = edit("removal", street(size), middle(size), "").convert("L").crop((left, top, right, bottom))
    rows = [ImageStat.Stat(filled.crop((0, y, filled.width, y + 1))).mean[0] for y in range(filled.height)]
    assert rows == sorted(rows)


def test_a_removal_of_everything_leaves_the_mean_colour() -> None:
    made = edit("removal", Image.new("RGB", (40, 40), (200, 100, 50)), Image.new("L", (40, 40), 255), "")
    assert [round(mean) for mean in ImageStat.Stat(made.crop((0, 0, 40, 15))).mean] == [200, 100, 50]


@pytest.mark.parametrize("task", TASKS)
def test_the_area_is_captioned_where_there_is_room(task: Task) -> None:
    """White letters with a black edge, in the lower part."""
    size = (512, 512)
    left, top, right, bottom = box(middle(size))
    made = edit(task, Image.new("RGB", size, "grey"), middle(size), "").crop((left, top, right, bottom))
    assert made.crop((0, made.height * 2 // 3, *made.size)).convert("L").getextrema() == (0, 255)
