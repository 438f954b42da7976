"""Where the models are called."""

from dataclasses import dataclass
from typing import Literal

from app.contract.models import Model
from app.providers.google import host

Method = Literal["predict", "generateContent"]


@dataclass(frozen=True, slots=True)
class Addresses:
    """URLs of a project's models.

    `location` serves the models that the catalogue calls regional, `gemini_location` those it calls global.
    `endpoint` (http://host:port or https://host:port; a bare host:port means http) is called instead of
    Google.
    """

    project: str
    location: str = "us-central1"
    gemini_location: str = "global"
    endpoint: str | None = None

    def url(self, model: Model, method: Method) -> str:
        location = {"regional": self.location, "global": self.gemini_location}.get(
            model.location, model.location
        )
        place = f"projects/{self.project}/locations/{location}/publishers/google/models/{model.id}"
        return f"{self._base(location)}/v1/{place}:{method}"

    def bases(self) -> set[str]:
        """Returns the addresses of both locations without a path."""
        return {self._base(location) for location in (self.location, self.gemini_location)}

    def _base(self, location: str) -> str:
        if not self.endpoint:
            return f"https://{host(location)}"
        return (self.endpoint if "://" in self.endpoint else f"http://{self.endpoint}").rstrip("/")
