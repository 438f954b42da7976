"""Answers made beforehand, for load tests. Noise makes their pictures as large as those of real models."""

import hashlib
from functools import cache

import orjson
from PIL import Image

from app.emulator import painter
from app.emulator.calls import Json
from app.emulator.vertex.wire import encode_base64

MAX_SAMPLES = 4


@cache
def _picture(seed: int, *, side: int = 1024, noise: float) -> str:
    """Returns a painted square PNG in base64. The share `noise` (0 to 1) of it cannot be compressed."""
    painted = painter.paint("canned", (side, side), seed=seed).tobytes()
    noisy = hashlib.shake_128(bytes([seed])).digest(int(len(painted) * noise))
    return encode_base64(painter.encode(Image.frombytes("RGB", (side, side), noisy + painted[len(noisy) :])))


def predict_answer(samples: int, *, upscale: bool) -> Json:
    """Imagen's answer: pictures of 1.5 MB, or one of 12 MB for an upscale."""
    pictures = (
        [_picture(0, side=2048, noise=0.95)] if upscale else [_picture(n, noise=0.42) for n in range(samples)]
    )
    return {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": each} for each in pictures]}


def content_answer() -> Json:
    """Gemini's answer: a picture of 1.5 MB."""
    parts = [{"inlineData": {"mimeType": "image/png", "data": _picture(0, noise=0.42)}}]
    return {"candidates": [{"finishReason": "STOP", "content": {"role": "model", "parts": parts}}]}


@cache
def content_bytes() -> bytes:
    """Gemini's answer over REST."""
    return orjson.dumps(content_answer())


@cache
def predict_bytes(samples: int, *, upscale: bool) -> bytes:
    """Imagen's answer over REST."""
    return orjson.dumps(predict_answer(samples, upscale=upscale))


@cache
def bedrock_answer(family: str) -> bytes:
    """InvokeModel's answer: a picture of 2 MB."""
    data = _picture(0, noise=0.6)
    match family:
        case "sdxl":
            artifacts = [{"base64": data, "finishReason": "SUCCESS", "seed": 0}]
            return orjson.dumps({"result": "success", "artifacts": artifacts})
        case "titan" | "nova":
            return orjson.dumps({"images": [data], "error": None})
        case _:
            return orjson.dumps({"images": [data], "seeds": [0], "finish_reasons": [None]})


def make_vertex_answers() -> None:
    """Makes all answers over REST now, so that no call waits for its picture."""
    for samples in range(1, MAX_SAMPLES + 1):
        predict_bytes(samples, upscale=False)
    predict_bytes(1, upscale=True)
    content_bytes()


def make_bedrock_answers() -> None:
    """Makes all answers of `bedrock_answer` now."""
    for family in ("sdxl", "titan", "nova", "stability2", "sd3"):
        bedrock_answer(family)
