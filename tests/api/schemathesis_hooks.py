"""What schemathesis needs to know beyond the document: real pictures, and which rules hold between fields.

Loaded by its command line through SCHEMATHESIS_HOOKS; see test_openapi.py.
"""

import base64
import re
from io import BytesIO
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure

from app.api.examples import GREY_PNG

BETWEEN_FIELDS = re.compile(
    r"seed is not available when addWatermark is true"
    r"|referenceImages must contain exactly one REFERENCE_TYPE_(RAW|MASK)"
    r"|referenceImages\.\d+\.(maskImageConfig should not be null|nested property maskImageConfig must be)"
    r"|referenceImages\.\d+\.maskImageConfig\.maskClasses should not be empty with MASK_MODE_SEMANTIC"
    r"|prompt cites \[\d+\]"
    r"|(sampleImageSize 2K|addWatermark false) is not available with"
    r"|Invalid (image dimensions|negative_prompt)"
)
"""400s for rules that the document says in words, and JSON Schema not at all or not readably."""

BRACKETED = re.compile(r"referenceImages|productImages must contain at least 1 elements")
"""In a form, one bracket name may need another; and `images` holds the person before the products."""


def png(level: int) -> bytes:
    out = BytesIO()
    Image.new("L", (64, 64), level).save(out, "PNG")
    return out.getvalue()


PICTURES = st.integers(0, 255).map(png)
schemathesis.openapi.format("binary", PICTURES)
schemathesis.openapi.format("picture", PICTURES.map(lambda data: base64.b64encode(data).decode()))
schemathesis.openapi.format("init-image", st.just(GREY_PNG))
schemathesis.openapi.format("gs-uri", st.from_regex(r"gs://image-gateway/[a-z]{1,8}", fullmatch=True))


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Whether the failure counts."""
    if failure.code != "ST202":  # a schema-valid request was rejected
        return True
    body = response.json()
    message = body.get("message", body.get("error"))  # Nest's shape, or that of /gen
    sentences = message if isinstance(message, list) else [message]
    allowed = [BETWEEN_FIELDS, BRACKETED] if case.media_type == "multipart/form-data" else [BETWEEN_FIELDS]
    return not all(any(rule.match(sentence) for rule in allowed) for sentence in sentences)
