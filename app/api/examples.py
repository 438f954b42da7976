"""Example bodies of the API documentation: they work when they are sent as they stand."""

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
