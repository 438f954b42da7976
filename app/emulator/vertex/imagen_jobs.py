"""What a `:predict` request without reference images asks to draw: one function per operation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from app.contract.models import Model
from app.emulator import painter
from app.emulator.calls import Json
from app.emulator.gcs.objects import Objects
from app.emulator.vertex.imagen_request import (
    Body,
    Dressing,
    Generate,
    Parameters,
    Placing,
    Prompt,
    Recontext,
    Sampled,
    Source,
    TryOn,
    Upscale,
    Upscaling,
    Wrapped,
)
from app.emulator.vertex.wire import MEBIBYTE, decode_base64, fetch, invalid, open_picture, read

MAX_BYTES = 10 * MEBIBYTE
MAX_UPSCALED_PIXELS = 17_000_000
SIZES = {
    "1:1": (1024, 1024),
    "3:4": (896, 1280),
    "4:3": (1280, 896),
    "9:16": (768, 1408),
    "16:9": (1408, 768),
}
SEED_WITH_WATERMARK = "Seed is not supported when watermark is enabled."


@dataclass(frozen=True, slots=True)
class Job:
    """A valid request. `draw` takes a seed. If `enhanced`, the service rewrites the prompt."""

    prompt: str
    parameters: Parameters
    samples: int
    seed: int | None
    draw: Callable[[int], Image.Image]
    enhanced: bool = False


def generate(model: Model, body: Json, _: Objects) -> Job:
    request = read(Body[Prompt, Generate], body)
    prompt, parameters = request.instances[0].prompt, request.parameters
    _check_seed(parameters)
    width, height = SIZES[parameters.aspect_ratio or "1:1"]
    if parameters.sample_image_size is not None and "2K" not in model.capabilities:
        raise invalid("sampleImageSize is not supported by this model.", "parameters.sample_image_size")
    scale = 2 if parameters.sample_image_size == "2K" else 1
    size = width * scale, height * scale
    return Job(
        prompt,
        parameters,
        parameters.sample_count or 4,
        parameters.seed,
        lambda seed: painter.paint(prompt, size, seed=seed),
        enhanced=parameters.enhance_prompt is True,
    )


def upscale(_: Model, body: Json, objects: Objects) -> Job:
    request = read(Body[Upscaling, Upscale], body)
    instance, parameters = request.instances[0], request.parameters
    source = open_source(objects, instance.image, "instances[0].image")
    factor = int(parameters.upscale_config.upscale_factor[1:])
    if source.width * source.height * factor**2 > MAX_UPSCALED_PIXELS:
        raise invalid("The upscaled image would exceed 17 megapixels.", "instances[0].image")
    return Job(instance.prompt, parameters, 1, None, lambda _: painter.upscale(source, factor))


def try_on(model: Model, body: Json, objects: Objects) -> Job:
    request = read(Body[Dressing, TryOn], body)
    instance, parameters = request.instances[0], request.parameters
    _check_seed(parameters)
    if len(instance.product_images) > 1 and "several-products" not in model.capabilities:
        raise invalid("Only one product image is supported.", "instances[0].product_images")
    person = open_source(objects, instance.person_image.image, "instances[0].person_image")
    products = _open_products(objects, instance.product_images, MAX_BYTES)
    return Job(
        "",
        parameters,
        parameters.sample_count or 1,
        parameters.seed,
        lambda seed: painter.try_on(person, products, seed=seed),
    )


def recontext(_: Model, body: Json, objects: Objects) -> Job:
    request = read(Body[Placing, Recontext], body)
    instance, parameters = request.instances[0], request.parameters
    _check_seed(parameters)
    products = _open_products(objects, instance.product_images, None)
    return Job(
        instance.prompt,
        parameters,
        parameters.sample_count or 1,
        parameters.seed,
        lambda seed: painter.recontext(products, instance.prompt, SIZES["1:1"], seed=seed),
        enhanced=parameters.enhance_prompt is True,
    )


def _open_products(objects: Objects, products: Sequence[Wrapped], limit: int | None) -> list[Image.Image]:
    field = "instances[0].product_images"
    return [open_source(objects, each.image, f"{field}[{at}]", limit) for at, each in enumerate(products)]


def open_source(objects: Objects, source: Source, field: str, limit: int | None = MAX_BYTES) -> Image.Image:
    if source.gcs_uri is not None:
        data = fetch(objects, source.gcs_uri, field)
    else:
        data = decode_base64(source.bytes_base64_encoded or "", field)
    return open_picture(data, field, limit=limit, formats=("PNG", "JPEG"))


def _check_seed(parameters: Sampled) -> None:
    """Raises Refusal for a seed with a watermark, which is on by default."""
    if parameters.seed is not None and parameters.add_watermark is not False:
        raise invalid(SEED_WITH_WATERMARK, "parameters.seed")
