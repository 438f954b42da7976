"""What a `:predict` request with reference images asks to draw: editing and customization."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from app.contract.models import Model
from app.emulator import painter, retouch
from app.emulator.calls import Json
from app.emulator.gcs.objects import Objects
from app.emulator.vertex.imagen_jobs import SEED_WITH_WATERMARK, SIZES, Job, open_source
from app.emulator.vertex.imagen_request import Body, Edit, Editing, Reference
from app.emulator.vertex.wire import invalid, read


def edit(_: Model, body: Json, objects: Objects) -> Job:
    """Editing, if there is a RAW picture; otherwise customization."""
    request = read(Body[Editing, Edit], body)
    instance, parameters = request.instances[0], request.parameters
    if parameters.seed is not None and parameters.add_watermark is True:
        raise invalid(SEED_WITH_WATERMARK, "parameters.seed")
    references = _open_references(objects, instance.reference_images)
    _check_types(references, parameters)
    _check_sizes(references)
    if not references["RAW"]:
        _check_citations(instance)
    draw = (_editor if references["RAW"] else _customizer)(instance.prompt, parameters, references)
    return Job(instance.prompt, parameters, parameters.sample_count or 4, parameters.seed, draw)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A reference and its pixels. Only a mask can be without pixels."""

    reference: Reference
    picture: Image.Image | None


_References = dict[str, list[_Opened]]  # by type, without the prefix REFERENCE_TYPE_
_MASKED_MODES = {
    "EDIT_MODE_INPAINT_REMOVAL",
    "EDIT_MODE_INPAINT_INSERTION",
    "EDIT_MODE_BGSWAP",
    "EDIT_MODE_OUTPAINT",
}
_TASKS: dict[str | None, retouch.Task] = {
    "EDIT_MODE_INPAINT_REMOVAL": "removal",
    "EDIT_MODE_BGSWAP": "background",
    "EDIT_MODE_OUTPAINT": "outpaint",
}
_AT_REFERENCES = "instances[0].reference_images"


def _open_references(objects: Objects, references: Sequence[Reference]) -> _References:
    opened: _References = {kind: [] for kind in ("RAW", "MASK", "CONTROL", "STYLE", "SUBJECT")}
    for at, reference in enumerate(references):
        source, field = reference.reference_image, f"{_AT_REFERENCES}[{at}]"
        picture = None if source is None else open_source(objects, source, field)
        opened[reference.reference_type.removeprefix("REFERENCE_TYPE_")].append(_Opened(reference, picture))
    return opened


def _check_types(references: _References, parameters: Edit) -> None:
    raws, masks = len(references["RAW"]), len(references["MASK"])
    if raws > 1:
        raise invalid("Only one raw reference image is supported.", _AT_REFERENCES)
    if (masks or parameters.edit_mode in _MASKED_MODES) and (raws, masks) != (1, 1):
        message = "Mask-based editing needs exactly one raw and one mask reference image."
        raise invalid(message, _AT_REFERENCES)
    if parameters.edit_mode and not raws:
        raise invalid("editMode needs a raw reference image.", "parameters.edit_mode")
    if parameters.aspect_ratio and masks:
        raise invalid("aspectRatio is not supported for mask-based editing.", "parameters.aspect_ratio")


def _check_sizes(references: _References) -> None:
    for raw in references["RAW"]:
        for other in references["MASK"] + references["CONTROL"]:
            if raw.picture and other.picture and other.picture.size != raw.picture.size:
                message = "Mask and control images must have the size of the raw reference image."
                raise invalid(message, _AT_REFERENCES)


def _check_citations(instance: Editing) -> None:
    known = {reference.reference_id for reference in instance.reference_images}
    for cited in re.findall(r"\[(\d+)\]", instance.prompt):
        if int(cited) not in known:
            raise invalid(f"The prompt cites the unknown reference [{cited}].", "instances[0].prompt")


def _editor(prompt: str, parameters: Edit, references: _References) -> Callable[[int], Image.Image]:
    raw = references["RAW"][0].picture
    assert raw is not None  # noqa: S101 - only a mask can be without
    if not references["MASK"]:
        return lambda seed: painter.mix(raw, prompt, 0.5, seed)
    mask = _mask(references["MASK"][0], raw.size)
    task = _TASKS.get(parameters.edit_mode, "insertion")
    return lambda seed: retouch.edit(task, raw, mask, prompt, seed=seed)


def _mask(opened: _Opened, size: tuple[int, int]) -> Image.Image:
    config = opened.reference.mask_image_config
    assert config is not None  # noqa: S101 - checked by Reference
    if opened.picture is not None:
        return painter.dilate(opened.picture, config.dilation)
    if config.mask_mode == "MASK_MODE_SEMANTIC":
        return painter.dilate(painter.guess_classes(size, config.mask_classes), config.dilation)
    part: Literal["foreground", "background"] = (
        "background" if config.mask_mode == "MASK_MODE_BACKGROUND" else "foreground"
    )
    return painter.dilate(painter.guess_mask(size, part), config.dilation)


def _customizer(prompt: str, parameters: Edit, references: _References) -> Callable[[int], Image.Image]:
    shown = [opened.picture for group in references.values() for opened in group if opened.picture]
    size = SIZES[parameters.aspect_ratio or "1:1"]
    return lambda seed: painter.recontext(shown, prompt, size, seed=seed)
