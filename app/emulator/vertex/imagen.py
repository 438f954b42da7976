"""The `:predict` family: generation, editing, upscaling, try-on and recontext. Rules and answers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from app.contract.models import Model, Operation
from app.emulator import painter, retouch
from app.emulator.calls import Json
from app.emulator.objects import Objects
from app.emulator.trouble import Trouble
from app.emulator.vertex.imagen_request import (
    Body,
    Dressing,
    Edit,
    Editing,
    Generate,
    Parameters,
    Placing,
    Prompt,
    Recontext,
    Reference,
    Sampled,
    Source,
    TryOn,
    Upscale,
    Upscaling,
    Wrapped,
)
from app.emulator.vertex.wire import (
    BLOCKED_OUTPUT,
    BLOCKED_PROMPT,
    MEBIBYTE,
    Refusal,
    decode_base64,
    detail,
    encode_base64,
    fetch,
    filled,
    invalid,
    open_picture,
    read,
    store,
)

MAX_BYTES = 10 * MEBIBYTE
MAX_UPSCALED_PIXELS = 17_000_000
_SIZES = {
    "1:1": (1024, 1024),
    "3:4": (896, 1280),
    "4:3": (1280, 896),
    "9:16": (768, 1408),
    "16:9": (1408, 768),
}
_SEED_WITH_WATERMARK = "Seed is not supported when watermark is enabled."


@dataclass(frozen=True, slots=True)
class _Job:
    """A request that kept the rules. `draw` makes the picture for a seed."""

    prompt: str
    parameters: Parameters
    samples: int
    seed: int | None
    draw: Callable[[int], Image.Image]
    enhanced: bool = False


def predict(
    model: Model, body: Json, objects: Objects, *, unseeded: int, trouble: Trouble | None
) -> tuple[Json, int]:
    """The answer to a `:predict` call and the number of pictures it charges for. Raises Refusal.

    `unseeded` takes the place of the seed in a request without one. Of the troubles, those of the safety
    filter and the empty answers are played here.
    """
    job = _READERS[model.operations[0]](model, {"parameters": {}, **body}, objects)
    kind = trouble.kind if trouble else None
    if kind == "blocked-prompt":
        raise _blocked(trouble)
    if kind == "empty":
        return {}, 0
    if kind == "text-only":  # these models cannot speak; this is how they say no without a code
        text = f"The safety threshold removed {job.samples} generated images. Try another prompt."
        return {"predictions": [{"raiFilteredReason": text}]}, 0
    seed = unseeded if job.seed is None or job.enhanced else job.seed
    predictions, paid = _predictions(job, objects, seed, trouble)
    if job.parameters.include_safety_attributes:
        predictions.append({"contentType": "Positive Prompt", "safetyAttributes": _HARMLESS})
    return filled(predictions=predictions, deployedModelId="0", modelDisplayName=model.id), paid


def _predictions(job: _Job, objects: Objects, seed: int, trouble: Trouble | None) -> tuple[list[Json], int]:
    """One element per sample, and how many are pictures. Without reasons, filtered ones are missing."""
    never = job.samples + 1
    every = {"blocked-output": 1, "half-blocked": 2}.get((trouble and trouble.kind) or "", never)
    filtered = [(number + 1) % every == 0 for number in range(job.samples)]
    pictures = _deliver(job, objects, [seed * 4 + number for number, gone in enumerate(filtered) if not gone])
    if not job.parameters.include_rai_reason:
        return pictures, len(pictures)
    code = trouble.arg if trouble and trouble.arg else BLOCKED_OUTPUT
    reason = f"The current safety threshold removed 1 generated image. Support codes: {code}"
    shown = iter(pictures)
    return [{"raiFilteredReason": reason} if gone else next(shown) for gone in filtered], len(pictures)


_HARMLESS = {"categories": ["Violence", "Sexual"], "scores": [0.1, 0.1]}


def _blocked(trouble: Trouble | None) -> Refusal:
    """The prompt was filtered: the code stands in the details only."""
    code = trouble.arg if trouble and trouble.arg else BLOCKED_PROMPT
    message = "Image generation failed: the prompt could not be submitted."
    text = f"[ORIGINAL ERROR] generic::invalid_argument: {message} Support codes: {code}"
    return Refusal(400, "INVALID_ARGUMENT", message, [detail("DebugInfo", detail=text)])


def _deliver(job: _Job, objects: Objects, seeds: Sequence[int]) -> list[Json]:
    """Draw a picture per seed and hand it over as the request asks: as bytes, or written to storageUri."""
    options, parameters = job.parameters.output_options, job.parameters
    files = [painter.encode(job.draw(seed), options.mime_type, options.compression_quality) for seed in seeds]
    if parameters.storage_uri is not None:
        uris = store(objects, parameters.storage_uri, files, options.mime_type)
        where = [{"gcsUri": uri} for uri in uris]
    else:
        where = [{"bytesBase64Encoded": encode_base64(file)} for file in files]
    more: Json = {"prompt": f"{job.prompt}, highly detailed"} if job.enhanced else {}
    if parameters.include_safety_attributes:
        more["safetyAttributes"] = _HARMLESS
    return [{"mimeType": options.mime_type, **place, **more} for place in where]


def _generate(model: Model, body: Json, _: Objects) -> _Job:
    request = read(Body[Prompt, Generate], body)
    prompt, parameters = request.instances[0].prompt, request.parameters
    _check_seed(parameters)
    width, height = _SIZES[parameters.aspect_ratio or "1:1"]
    if parameters.sample_image_size is not None and "2K" not in model.capabilities:
        raise invalid("sampleImageSize is not supported by this model.", "parameters.sample_image_size")
    scale = 2 if parameters.sample_image_size == "2K" else 1
    size = width * scale, height * scale
    return _Job(
        prompt,
        parameters,
        parameters.sample_count or 4,
        parameters.seed,
        lambda seed: painter.paint(prompt, size, seed=seed),
        enhanced=parameters.enhance_prompt is True,
    )


def _upscale(_: Model, body: Json, objects: Objects) -> _Job:
    request = read(Body[Upscaling, Upscale], body)
    instance, parameters = request.instances[0], request.parameters
    source = _open(objects, instance.image, "instances[0].image")
    factor = int(parameters.upscale_config.upscale_factor[1:])
    if source.width * source.height * factor**2 > MAX_UPSCALED_PIXELS:
        raise invalid("The upscaled image would exceed 17 megapixels.", "instances[0].image")
    return _Job(instance.prompt, parameters, 1, None, lambda _: painter.upscale(source, factor))


def _try_on(model: Model, body: Json, objects: Objects) -> _Job:
    request = read(Body[Dressing, TryOn], body)
    instance, parameters = request.instances[0], request.parameters
    _check_seed(parameters)
    if len(instance.product_images) > 1 and "several-products" not in model.capabilities:
        raise invalid("Only one product image is supported.", "instances[0].product_images")
    person = _open(objects, instance.person_image.image, "instances[0].person_image")
    products = _open_products(objects, instance.product_images, MAX_BYTES)
    return _Job(
        "",
        parameters,
        parameters.sample_count or 1,
        parameters.seed,
        lambda seed: painter.try_on(person, products, seed=seed),
    )


def _recontext(_: Model, body: Json, objects: Objects) -> _Job:
    request = read(Body[Placing, Recontext], body)
    instance, parameters = request.instances[0], request.parameters
    _check_seed(parameters)
    products = _open_products(objects, instance.product_images, None)
    return _Job(
        instance.prompt,
        parameters,
        parameters.sample_count or 1,
        parameters.seed,
        lambda seed: painter.recontext(products, instance.prompt, _SIZES["1:1"], seed=seed),
        enhanced=parameters.enhance_prompt is True,
    )


def _edit(_: Model, body: Json, objects: Objects) -> _Job:
    """Editing (with a RAW picture) and customization (without)."""
    request = read(Body[Editing, Edit], body)
    instance, parameters = request.instances[0], request.parameters
    if parameters.seed is not None and parameters.add_watermark is True:
        raise invalid(_SEED_WITH_WATERMARK, "parameters.seed")
    references = _open_references(objects, instance.reference_images)
    _check_types(references, parameters)
    _check_sizes(references)
    if not references["RAW"]:
        _check_citations(instance)
    draw = (_editor if references["RAW"] else _customizer)(instance.prompt, parameters, references)
    return _Job(instance.prompt, parameters, parameters.sample_count or 4, parameters.seed, draw)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A reference and its pixels; a mask may be without."""

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
        picture = None if source is None else _open(objects, source, field)
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
    assert raw is not None  # noqa: S101 - only masks may be without
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
    size = _SIZES[parameters.aspect_ratio or "1:1"]
    return lambda seed: painter.recontext(shown, prompt, size, seed=seed)


def _open_products(objects: Objects, products: Sequence[Wrapped], limit: int | None) -> list[Image.Image]:
    field = "instances[0].product_images"
    return [_open(objects, each.image, f"{field}[{at}]", limit) for at, each in enumerate(products)]


def _open(objects: Objects, source: Source, field: str, limit: int | None = MAX_BYTES) -> Image.Image:
    if source.gcs_uri is not None:
        data = fetch(objects, source.gcs_uri, field)
    else:
        data = decode_base64(source.bytes_base64_encoded or "", field)
    return open_picture(data, field, limit=limit, formats=("PNG", "JPEG"))


def _check_seed(parameters: Sampled) -> None:
    """The watermark is on unless switched off."""
    if parameters.seed is not None and parameters.add_watermark is not False:
        raise invalid(_SEED_WITH_WATERMARK, "parameters.seed")


_READERS: dict[Operation, Callable[[Model, Json, Objects], _Job]] = {
    "text-to-image": _generate,
    "image-upscale": _upscale,
    "image-edit": _edit,  # and image-customize: the same model and the same request
    "virtual-try-on": _try_on,
    "product-recontext": _recontext,
}
"""By the first operation of a model of this family."""
