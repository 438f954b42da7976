"""Example request bodies of the API documentation. All of them work without changes."""

from typing import Any

from app.contract.models import Operation

# 64 by 64 pixels: all teal; and black with a white square, as a mask.
TINY_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAATUlEQVR42u3PQQ0AAAgEoNPkRjeFDzdoQGUmn3WeEx"
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQELi3gUQBgBESS1AAAAAASUVORK5CYII="
)
TINY_MASK = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAM0lEQVR42u3OIQ4AMAgEQej//1xEU4MjNRUz8hI2RA"
    "Ac2Yc9PFivHwgICAgICAj8FgC4CjPiAUBwf1GKAAAAAElFTkSuQmCC"
)

EXAMPLES: dict[Operation, dict[str, Any]] = {
    "text-to-image": {
        "prompt": "A beautiful sunset over a mountain landscape with vibrant colors",
        "sampleCount": 1,
        "outputOptions": {"mimeType": "image/png"},
    },
    "image-upscale": {"image": TINY_PNG, "upscaleFactor": "x2"},
    "image-edit": {
        "prompt": "Add a red car in the parking lot",
        "referenceImages": [
            {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": 1, "bytesBase64Encoded": TINY_PNG},
            {
                "referenceType": "REFERENCE_TYPE_MASK",
                "referenceId": 2,
                "bytesBase64Encoded": TINY_MASK,
                "maskImageConfig": {"maskMode": "MASK_MODE_USER_PROVIDED", "dilation": 0.01},
            },
        ],
        "editMode": "EDIT_MODE_INPAINT_INSERTION",
        "baseSteps": 35,
        "sampleCount": 1,
    },
    "image-customize": {
        "prompt": "A portrait of a man with short hair [1]",
        "referenceImages": [
            {
                "referenceType": "REFERENCE_TYPE_SUBJECT",
                "referenceId": 1,
                "bytesBase64Encoded": TINY_PNG,
                "subjectImageConfig": {
                    "subjectDescription": "a man with short hair",
                    "subjectType": "SUBJECT_TYPE_PERSON",
                },
            }
        ],
        "sampleCount": 1,
    },
    "virtual-try-on": {"personImage": TINY_PNG, "productImages": [TINY_PNG], "sampleCount": 1},
    "product-recontext": {
        "prompt": "Place the product on a modern kitchen counter with natural lighting",
        "productImages": [TINY_PNG],
        "sampleCount": 1,
    },
}

# 512 by 512 pixels of grey: the smallest picture that /gen takes.
GREY_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAgAAAAIAAQAAAADcA+lXAAAAjklEQVR42u3MQQ0AAAgEoNP+nTWELzcIQE1uOgKBQCAQCAQC"
    "gUAgEAgEAoFAIBAIBAKBQCAQCAQCgUAgEAgEAoFAIBAIBAKBQCAQCAQCgUAgEAgEAoFAIBAIBAKBQCAQCAQCgUAgEAgEAoFA"
    "IBAIBAKBQCAQCAQCgUAgEAgEAoFAIBAIBAKBQCAQCASvgwUV2wT/60VJcgAAAABJRU5ErkJggg=="
)
_AVOIDED = "blurry, low quality, distorted, watermark, text"

GEN_EXAMPLES: dict[str, dict[str, Any]] = {
    "1. Text-to-image, prompt enhanced": {
        "prompt": "a beautiful sunset over mountains",
        "regen_prompt": True,
        "mode": "text2img",
        "aspect_ratio": "16:9",
    },
    "2. Text-to-image, prompt as it is": {
        "prompt": "a futuristic city with flying cars, neon lights, cyberpunk style, 8k, ultra detailed, "
        "dramatic lighting, cinematic composition",
        "regen_prompt": False,
        "mode": "text2img",
        "aspect_ratio": "1:1",
    },
    "3. Text-to-image, Vietnamese": {
        "prompt": "một cô gái áo dài đang đi trên cầu Nhật Bản, hoàng hôn đẹp",
        "regen_prompt": True,
        "mode": "text2img",
        "prompt_language": "vi",
        "aspect_ratio": "9:16",
    },
    "4. Image-to-image, close to the picture": {
        "prompt": "turn this into a watercolor painting",
        "negative_prompt": f"{_AVOIDED}, ugly, deformed",
        "regen_prompt": True,
        "mode": "img2img",
        "init_image": GREY_PNG,
        "similarity_strength": 0.7,
        "aspect_ratio": "1:1",
    },
    "5. Image-to-image, far from the picture": {
        "prompt": "make it look like a comic book illustration, bold colors, graphic novel style",
        "negative_prompt": f"{_AVOIDED}, ugly, deformed",
        "regen_prompt": True,
        "mode": "img2img",
        "init_image": GREY_PNG,
        "similarity_strength": 0.3,
        "aspect_ratio": "1:1",
    },
    "6. Image-to-image, much to avoid": {
        "prompt": "professional portrait photo, studio lighting, high quality, sharp focus",
        "negative_prompt": f"{_AVOIDED}, ugly, deformed, bad anatomy, disfigured",
        "regen_prompt": True,
        "mode": "img2img",
        "init_image": GREY_PNG,
        "similarity_strength": 0.5,
        "aspect_ratio": "1:1",
    },
    "7. Image-to-image, 16:9": {
        "prompt": "epic cinematic landscape, dramatic lighting, golden hour",
        "negative_prompt": _AVOIDED,
        "regen_prompt": True,
        "mode": "img2img",
        "init_image": GREY_PNG,
        "similarity_strength": 0.6,
        "aspect_ratio": "16:9",
    },
}
"""The configurations of /gen's document."""

GEN_FORM: dict[str, Any] = {
    "prompt": "turn this into a watercolor painting",
    "negative_prompt": f"{_AVOIDED}, ugly, deformed",
    "similarity_strength": 0.7,
    "auto_resize": True,
}
"""A form of /gen. With `auto_resize` it accepts a picture of any size."""

LOGIN = {"username": "demo", "password": "the password printed at the start"}
