"""Request bodies of all endpoints that take pictures, with the pictures as bytes: for JSON and for forms."""

import base64
from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
from typing import Any

import httpx
from PIL import Image, ImageDraw

Json = dict[str, Any]
Part = tuple[str, tuple[str | None, str | bytes]]

SIZE = (96, 64)


def without_receipt(answer: httpx.Response) -> Json:
    """Returns the body of an error with an unknown outcome, without its receipt id."""
    body: Json = answer.json()
    assert body.pop("receiptId") == answer.headers["x-receipt-id"]
    return body


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(size: tuple[int, int] = SIZE, colour: str = "teal", format: str = "PNG") -> bytes:
    return encoded(Image.new("RGB", size, colour), format)


def mask(size: tuple[int, int] = SIZE) -> bytes:
    """Returns a mask: white in the middle, black around it."""
    image = Image.new("L", size)
    width, height = size
    ImageDraw.Draw(image).rectangle((width // 3, height // 3, width // 2, height // 2), fill="white")
    return encoded(image)


def opened(data: str | bytes) -> Image.Image:
    """Returns the decoded picture, from base64 or from the bytes of a file."""
    image = Image.open(BytesIO(base64.b64decode(data, validate=True) if isinstance(data, str) else data))
    image.load()
    return image


_BODIES: dict[str, Json] = {
    "image-upscale": {"image": picture()},
    "image-edit": {
        "prompt": "a red car",
        "referenceImages": [
            {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": 1, "bytesBase64Encoded": picture()},
            {
                "referenceType": "REFERENCE_TYPE_MASK",
                "referenceId": 2,
                "bytesBase64Encoded": mask(),
                "maskImageConfig": {"maskMode": "MASK_MODE_USER_PROVIDED", "dilation": 0.01},
            },
        ],
        "editMode": "EDIT_MODE_INPAINT_INSERTION",
    },
    "image-customize": {
        "prompt": "[1] at sea",
        "referenceImages": [
            {
                "referenceType": "REFERENCE_TYPE_SUBJECT",
                "referenceId": 1,
                "bytesBase64Encoded": picture(),
                "subjectImageConfig": {
                    "subjectDescription": "a tall man",
                    "subjectType": "SUBJECT_TYPE_PERSON",
                },
            }
        ],
    },
    "virtual-try-on": {"personImage": picture(), "productImages": [picture(colour="red")]},
    "product-recontext": {"prompt": "on a beach", "productImages": [picture(colour="red")]},
}
OPERATIONS = tuple(_BODIES)
MODELS = {
    "text-to-image": "imagen-3.0-generate-001",
    "image-upscale": "imagen-4.0-upscale-preview",
    "image-edit": "imagen-3.0-capability-001",
    "image-customize": "imagen-3.0-capability-001",
    "virtual-try-on": "virtual-try-on-preview-08-04",
    "product-recontext": "imagen-product-recontext-preview-06-30",
}
FIELDS = (
    ("image-upscale", "image"),
    ("image-edit", "referenceImages.0.bytesBase64Encoded"),
    ("image-edit", "referenceImages.1.bytesBase64Encoded"),
    ("image-customize", "referenceImages.0.bytesBase64Encoded"),
    ("virtual-try-on", "personImage"),
    ("virtual-try-on", "productImages.0"),
    ("product-recontext", "productImages.0"),
)
"""The operation and the dotted path of each field that takes a picture."""


def path(operation: str) -> str:
    return f"/api/v1/image/{operation}"


def body(operation: str, **fields: Any) -> Json:
    """Returns the operation's body with these fields added or replaced."""
    return {**deepcopy(_BODIES[operation]), **fields}


def replaced(body: Json, field: str, value: Any) -> Json:
    """Returns the body with another value at a dotted path."""
    *steps, last = [int(step) if step.isdecimal() else step for step in field.split(".")]
    at: Any = body
    for step in steps:
        at = at[step]
    at[last] = value
    return body


def as_json(value: Any) -> Any:
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {name: as_json(one) for name, one in value.items()}
        case list():
            return [as_json(one) for one in value]
        case _:
            return value


def as_form(value: Any, name: str = "") -> Iterator[Part]:
    """Yields the parts of a form for httpx's `files`: pictures as files, numbers and flags as text."""
    match value:
        case bytes():
            yield name.replace("[bytesBase64Encoded]", "[image]"), ("picture.png", value)
        case dict() if "personImage" in value:
            people, products = [value.pop("personImage")], value.pop("productImages")
            yield from as_form({"images": [*people, *products], **value})
        case dict():
            for key, one in value.items():
                yield from as_form(one, f"{name}[{key}]" if name else key)
        case list() if isinstance(value[0], bytes):
            for one in value:
                yield from as_form(one, name)
        case list():
            for index, one in enumerate(value):
                yield from as_form(one, f"{name}[{index}]")
        case bool():
            yield name, (None, str(value).lower())
        case _:
            yield name, (None, str(value))
