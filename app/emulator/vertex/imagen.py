"""The `:predict` family: generation, editing, upscaling, try-on and recontext."""

from collections.abc import Callable, Sequence

from app.contract.models import Model, Operation
from app.emulator import painter
from app.emulator.calls import Json
from app.emulator.gcs.objects import Objects
from app.emulator.trouble import Trouble
from app.emulator.vertex import imagen_edit, imagen_jobs
from app.emulator.vertex.imagen_jobs import Job
from app.emulator.vertex.wire import (
    BLOCKED_OUTPUT,
    BLOCKED_PROMPT,
    Refusal,
    detail,
    encode_base64,
    filled,
    store,
)

_READERS: dict[Operation, Callable[[Model, Json, Objects], Job]] = {
    "text-to-image": imagen_jobs.generate,
    "image-upscale": imagen_jobs.upscale,
    "image-edit": imagen_edit.edit,
    "image-customize": imagen_edit.edit,
    "virtual-try-on": imagen_jobs.try_on,
    "product-recontext": imagen_jobs.recontext,
}
"""By a model's first operation: the other operations of an Imagen model have the same request."""
_HARMLESS = {"categories": ["Violence", "Sexual"], "scores": [0.1, 0.1]}


def predict(
    model: Model, body: Json, objects: Objects, *, unseeded: int, trouble: Trouble | None
) -> tuple[Json, int]:
    """Returns the answer to a `:predict` call and the number of pictures charged. Raises Refusal.

    `unseeded` is the seed of a request without one. The troubles of the safety filter and the empty answers
    are played here.
    """
    job = _READERS[model.operations[0]](model, {"parameters": {}, **body}, objects)
    kind = trouble.kind if trouble else None
    if kind == "blocked-prompt":
        raise _blocked(trouble)
    if kind == "empty":
        return {}, 0
    if kind == "text-only":  # these models return no text; a filtered answer without a code comes closest
        text = f"The safety threshold removed {job.samples} generated images. Try another prompt."
        return {"predictions": [{"raiFilteredReason": text}]}, 0
    seed = unseeded if job.seed is None or job.enhanced else job.seed
    predictions, paid = _predictions(job, objects, seed, trouble)
    if job.parameters.include_safety_attributes:
        predictions.append({"contentType": "Positive Prompt", "safetyAttributes": _HARMLESS})
    return filled(predictions=predictions, deployedModelId="0", modelDisplayName=model.id), paid


def _predictions(job: Job, objects: Objects, seed: int, trouble: Trouble | None) -> tuple[list[Json], int]:
    """Returns the predictions and the number of pictures in them.

    A filtered sample has its reason as its prediction, or none if the request does not want reasons.
    """
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


def _blocked(trouble: Trouble | None) -> Refusal:
    """Returns the error for a filtered prompt. Only its details hold the support code."""
    code = trouble.arg if trouble and trouble.arg else BLOCKED_PROMPT
    message = "Image generation failed: the prompt could not be submitted."
    text = f"[ORIGINAL ERROR] generic::invalid_argument: {message} Support codes: {code}"
    return Refusal(400, "INVALID_ARGUMENT", message, [detail("DebugInfo", detail=text)])


def _deliver(job: Job, objects: Objects, seeds: Sequence[int]) -> list[Json]:
    """Draws one picture per seed. Returns predictions with the bytes, or with the URIs under storageUri."""
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
