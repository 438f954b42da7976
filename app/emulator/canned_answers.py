"""Answers made beforehand, for load tests: noisy pictures that weigh as much as a model's."""

import hashlib
from functools import cache

import orjson
from PIL import Image

from app.contract.models import Family
from app.emulator import painter
from app.emulator.calls import Json
from app.emulator.vertex.wire import encode_base64

MOST_SAMPLES = 4


@cache
def _picture(seed: int, *, side: int = 1024, noise: float) -> str:
    """A painted square PNG as base64. A share of its rows is noise, which nothing shrinks."""
    painted = painter.paint("canned", (side, side), seed=seed).tobytes()
    noisy = hashlib.shake_128(bytes([seed])).digest(int(len(painted) * noise))
    return encode_base64(painter.encode(Image.frombytes("RGB", (side, side), noisy + painted[len(noisy) :])))


def predict_answer(model: str, samples: int) -> Json:
    """Imagen's: pictures of 1.5 MB, or one of 12 MB for an upscale."""
    upscale = "upscale" in model
    pictures = (
        [_picture(0, side=2048, noise=0.95)] if upscale else [_picture(n, noise=0.42) for n in range(samples)]
    )
    return {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": each} for each in pictures]}


def content_answer() -> Json:
    """Gemini's: a picture of 1.5 MB."""
    parts = [{"inlineData": {"mimeType": "image/png", "data": _picture(0, noise=0.42)}}]
    return {"candidates": [{"finishReason": "STOP", "content": {"role": "model", "parts": parts}}]}


def rest_answer(method: str, model: str, samples: int) -> bytes:
    """Vertex's answer over REST."""
    if method == "generateContent":
        return _content_bytes()
    return _predict_bytes("upscale" if "upscale" in model else "", samples)


@cache
def _content_bytes() -> bytes:
    return orjson.dumps(content_answer())


@cache
def _predict_bytes(model: str, samples: int) -> bytes:
    return orjson.dumps(predict_answer(model, samples))


@cache
def bedrock_answer(family: Family) -> bytes:
    """InvokeModel's: a picture of 2 MB."""
    data = _picture(0, noise=0.6)
    match family:
        case "sdxl":
            shown = [{"base64": data, "finishReason": "SUCCESS", "seed": 0}]
            return orjson.dumps({"result": "success", "artifacts": shown})
        case "titan":
            return orjson.dumps({"images": [data], "error": None})
        case _:
            return orjson.dumps({"images": [data], "seeds": [0], "finish_reasons": [None]})


def make_vertex_answers() -> None:
    """Make all answers of `rest_answer` now, so that no call waits for its picture."""
    for samples in range(1, MOST_SAMPLES + 1):
        _predict_bytes("", samples)
    _predict_bytes("upscale", 1)
    _content_bytes()


def make_bedrock_answers() -> None:
    """Make all answers of `bedrock_answer` now."""
    for family in ("sdxl", "titan", "stability2"):
        bedrock_answer(family)
