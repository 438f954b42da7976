"""What schemathesis needs to know beyond the document: real pictures, and which rules hold between fields.

Loaded by its command line through SCHEMATHESIS_HOOKS; see test_openapi.py.
"""

import base64
import re
from io import BytesIO
from typing import Any

import jsonschema_rs
import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure

from app.api.examples import GREY_PNG

BETWEEN_FIELDS = re.compile(
    r"referenceImages must contain exactly one REFERENCE_TYPE_(RAW|MASK)"
    r"|prompt cites \[\d+\]"
    r"|(sampleImageSize 2K|addWatermark false) is not available with"
    r"|Invalid (image dimensions|negative_prompt)"
)
"""400s for rules that the document says in words, and JSON Schema not at all or not readably."""

OTHER_SPELLING = re.compile("Invalid responseFormat|response_format must be one of")
"""The schema has one spelling of this field, and its description names the other."""

IN_A_FORM = re.compile(
    r"referenceImages|productImages must contain at least 1 elements"
    r"|seed is not available when addWatermark is true"
)
"""In a form one name may need another, and `images` holds the person before the products. The schema for JSON
says such things with if and then, which schemathesis does not take for forms."""

TEXT = re.compile(
    r"violates `type` at /properties/\S+ \(was (string, became \w+|\w+, became array)\)"
    r"|(violates `\w+` at /properties/|in body - )referenceImages\[\d\]\[maskImageConfig\]"
)
"""In a form every value is text, and a list of one is its element. No JSON Schema for forms that schemathesis
understands can say that the mask's settings are not looked at beside the picture itself."""


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
def before_process_path(context: HookContext, path: str, methods: dict[str, Any]) -> None:
    """Leave out X-Trouble and Idempotency-Key: the failures that they cause are not findings
    (test_rehearsing.py and test_pay_once.py test them)."""
    for operation in methods.values():
        if "parameters" in operation:
            left = [
                one for one in operation["parameters"] if one["name"] not in ("X-Trouble", "Idempotency-Key")
            ]
            operation["parameters"] = left


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Whether the failure counts. What does not is settled, each by name and with a look at the answer."""
    form = case.media_type == "multipart/form-data"
    match failure.code:
        case "ST201":  # a request that breaks the schema was accepted
            return not (_all_match([TEXT], _violations(failure.message)) if form else _nest_took_it(case))
        case "ST202":  # a request that keeps to the schema was rejected
            allowed = [BETWEEN_FIELDS, OTHER_SPELLING, *([IN_A_FORM] if form else [])]
            return not _all_match(allowed, _sentences(response))
        case "ST204":  # a method that is not there was not answered by 405
            return not _is_our_404(response)
        case _:
            return True


def _nest_took_it(case: Case[Any]) -> bool:
    """Whether the body keeps to the schema once it is read as Nest read it (docs/validation.md)."""
    body = case.operation.definition.raw["requestBody"]["content"]["application/json"]
    texts = case.path.endswith(("virtual-try-on", "product-recontext", "image-upscale"))
    names = {"compressionQuality", *(("sampleCount", "baseSteps", "seed") if texts else ())}
    flags = {"addWatermark", "enhancePrompt"} if texts else set()
    return bool(jsonschema_rs.is_valid(body["schema"], _as_nest_read(case.body, names, flags)))


def _as_nest_read(value: Any, numbers: set[str], flags: set[str]) -> Any:
    """A list in an object's place is its first element; numbers and flags may be text, and flags numbers."""
    while isinstance(value, list):
        value = value[0] if value else {}
    read = {}
    for name, one in value.items():
        if name in numbers and isinstance(one, bool | str):
            one = _number(one)
        elif name in flags and one in ("true", "false"):
            one = one == "true"
        elif name == "outputOptions" or name.endswith("ImageConfig"):
            one = _as_nest_read(one, numbers, flags)
        elif name == "referenceImages":
            one = [_as_nest_read(reference, numbers, flags) for reference in one]
        read[name] = one
    return read


def _number(value: bool | str) -> Any:
    try:
        return float(value or 0)
    except ValueError:
        return value


def _all_match(allowed: list[re.Pattern[str]], texts: list[str]) -> bool:
    return bool(texts) and all(any(rule.search(text) for rule in allowed) for text in texts)


def _violations(message: str) -> list[str]:
    """What schemathesis broke: behind the colon, or in a list of lines below it."""
    told = message.partition("Invalid component:")[2].splitlines()
    return told[1:] or told


def _sentences(response: Response) -> list[str]:
    body = response.json()
    message = body.get("message", body.get("error"))  # Nest's shape, or that of /gen
    return message if isinstance(message, list) else [message]


def _is_our_404(response: Response) -> bool:
    """Nest's answer to a wrong method, or that of /gen, and not 405 (docs/decisions/0020)."""
    request = response.request
    sentence = f"Cannot {request.method} {request.path_url}"
    nest = {"statusCode": 404, "message": sentence, "error": "Not Found"}
    gen = {"status": "error", "error": sentence, "details": "POST is the only method of this path"}
    told = gen if "/api/v1/" not in request.path_url and request.path_url.endswith("gen") else nest
    return response.status_code == 404 and (request.method == "HEAD" or response.json() == told)
