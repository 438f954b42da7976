"""Vertex's PredictionService without a transport: finds the model, plays the trouble, does the work."""

import math
import re
from dataclasses import dataclass
from typing import Any

from app.contract.models import Catalogue
from app.emulator.bodies import texts
from app.emulator.calls import Call, Calls, Json
from app.emulator.gcs.objects import Objects
from app.emulator.trouble import Trouble, Troubles
from app.emulator.vertex import gemini, imagen
from app.emulator.vertex.wire import Refusal, detail, invalid

_RESOURCE = re.compile(r"projects/[^/]+/locations/([^/]+)/publishers/google/models/([^/]+)")
_TEXT_KEYS = frozenset({"prompt", "text"})
_METHODS = {"predict": imagen.predict, "generateContent": gemini.generate}
_FAMILIES = {"predict": "imagen", "generateContent": "gemini"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as REST gives it: HTTP status and JSON. `retry_after` is in seconds."""

    status: int
    body: Any
    retry_after: int | None = None


class Vertex:
    """The PredictionService of the emulated cloud. Every method is safe to call from any thread."""

    def __init__(self, catalogue: Catalogue, objects: Objects, calls: Calls, troubles: Troubles) -> None:
        self._catalogue = catalogue
        self._objects = objects
        self._calls = calls
        self._troubles = troubles

    def begin(
        self, method: str, resource: str, body: Json, header: str | None
    ) -> tuple[Call, Trouble | None]:
        """Records a call. Returns it and its trouble.

        `resource` is projects/…/models/…, `header` the call's X-Trouble.
        """
        model = resource.rpartition("/")[2]
        call = self._calls.record("vertex", method, model, body)
        return call, self._troubles.ask("vertex", model, " ".join(texts(body, _TEXT_KEYS)), header)

    def answer(self, call: Call, resource: str, body: Json, trouble: Trouble | None) -> Answer:
        """Does the work of a call that `begin` recorded, and charges for its pictures."""
        if trouble and trouble.kind == "answer":
            return Answer(trouble.arg["status"], trouble.arg["body"])
        try:
            _rehearse(trouble, resource)
            answer, pictures = self._work(call, resource, body, trouble)
        except Refusal as refusal:
            return Answer(refusal.code, refusal.as_json(), _retry_after(refusal))
        self._calls.pay(call, pictures)
        return Answer(200, answer)

    def _work(self, call: Call, resource: str, body: Json, trouble: Trouble | None) -> tuple[Json, int]:
        found = _RESOURCE.fullmatch(resource)
        if found is None:
            raise invalid(f"Invalid Endpoint name: {resource}.")
        location, id = found.groups()
        model = next((m for m in self._catalogue.model if m.vendor == "google" and m.id == id), None)
        if model is None or (location == "global" and model.location == "regional"):
            raise _gone(resource)
        if model.family != _FAMILIES[call.method]:
            message = f"{model.id} cannot be accessed through the {call.method} API."
            raise Refusal(400, "FAILED_PRECONDITION", message)
        return _METHODS[call.method](model, body, self._objects, unseeded=call.id, trouble=trouble)


def _rehearse(trouble: Trouble | None, resource: str) -> None:
    """Raises the Refusal that the trouble asks for, if it asks for one."""
    match trouble.kind if trouble else None:
        case "429":
            quota = "aiplatform.googleapis.com/online_prediction_requests_per_base_model"
            message = f"Quota exceeded for {quota}."
            raise Refusal(429, "RESOURCE_EXHAUSTED", message, _retry_info(trouble, default=1))
        case "500":
            raise Refusal(500, "INTERNAL", "Internal error encountered.")
        case "503":
            message = "The service is currently unavailable."
            raise Refusal(503, "UNAVAILABLE", message, _retry_info(trouble))
        case "retired":
            raise _gone(resource)


def _retry_info(trouble: Trouble | None, default: float | None = None) -> list[Json]:
    seconds = default if trouble is None or trouble.arg is None else float(trouble.arg)
    return [] if seconds is None else [detail("RetryInfo", retryDelay=f"{seconds:g}s")]


def _retry_after(refusal: Refusal) -> int | None:
    delays = [each["retryDelay"] for each in refusal.details if "retryDelay" in each]
    return math.ceil(float(delays[0].removesuffix("s"))) if delays else None


def _gone(resource: str) -> Refusal:
    message = (
        f"Publisher Model `{resource}` was not found or your project does not have access to it. "
        "Please ensure you are using a valid model version. For more information, see: "
        "https://cloud.google.com/vertex-ai/generative-ai/docs/learn/model-versions"
    )
    return Refusal(404, "NOT_FOUND", message)
