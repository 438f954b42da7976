"""Which vendors are plugged in, and how their providers are made of the settings.

A new vendor is a line in one of the tables. The key is the vendor's name in the catalogue.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, get_args

from app.contract.gen import GenRequest
from app.contract.image import ImageRequest
from app.contract.models import Catalogue, Families, GenOperation, ImageOperation
from app.ports import Admission, Provider
from app.providers.bedrock.client import Bedrock
from app.providers.claude import Claude, Platform
from app.providers.transport import Transport
from app.providers.vertex.address import Addresses
from app.providers.vertex.client import Vertex
from app.providers.vertex.credentials import Bearer
from app.settings import Settings

_EMULATED_KEY = "emulated"
"""So that real credentials, where there are any, are not even looked for."""

R = TypeVar("R", contravariant=True)


@dataclass(frozen=True, slots=True)
class Outside:
    """What providers are made of. `token` is None if Google itself is not called."""

    settings: Settings
    catalogue: Catalogue
    transport: Transport
    admission: Admission
    token: Bearer | None


@dataclass(frozen=True, slots=True)
class Vendor(Generic[R]):
    """A vendor that is plugged in. `name` stands in the readiness check."""

    name: str
    families: Families
    make: Callable[[Outside], Provider[R]]


def _vertex(outside: Outside) -> Vertex:
    settings = outside.settings
    return Vertex(
        transport=outside.transport,
        admission=outside.admission,
        addresses=Addresses(
            settings.google_cloud_project,
            settings.vertex_location,
            settings.vertex_gemini_location,
            settings.vertex_endpoint,
        ),
        credentials=outside.token.headers if outside.token else None,
        pause_seconds=settings.retry_pause_seconds,
    )


def _bedrock(outside: Outside) -> Bedrock:
    settings = outside.settings
    return Bedrock(
        transport=outside.transport,
        admission=outside.admission,
        regions={model.location for model in outside.catalogue.model if model.vendor == "aws"},
        endpoint_url=settings.aws_endpoint_url_bedrock_runtime,
        keys=(_EMULATED_KEY, _EMULATED_KEY) if settings.cloud == "emulator" else None,
        pause_seconds=settings.retry_pause_seconds,
    )


IMAGE_VENDORS: dict[str, Vendor[ImageRequest]] = {"google": Vendor("vertex", Vertex.families, _vertex)}
GEN_VENDORS: dict[str, Vendor[GenRequest]] = {"aws": Vendor("bedrock", Bedrock.families, _bedrock)}


def make_rewriter(outside: Outside) -> Claude:
    settings = outside.settings
    api_key: str | None = None  # by Bedrock and by Vertex AI the SDK finds credentials itself
    if settings.cloud == "emulator":
        api_key = _EMULATED_KEY
    elif settings.claude_via == "anthropic" and settings.anthropic_api_key:
        api_key = settings.anthropic_api_key.get_secret_value()
    return Claude(
        Platform(
            settings.claude_via,
            api_key=api_key,
            base_url=settings.anthropic_base_url,
            aws_region=settings.aws_region,
            google_project=settings.google_cloud_project,
            google_location=settings.cloud_ml_region,
            bedrock_version=settings.claude_bedrock_version,
        ),
        admission=outside.admission,
        pause_seconds=settings.retry_pause_seconds,
    )


def check_served(catalogue: Catalogue) -> None:
    """Raises ValueError if the catalogue promises what no provider can do, or lacks a default."""
    images = {id: vendor.families for id, vendor in IMAGE_VENDORS.items()}
    catalogue.check_served(get_args(ImageOperation), images)
    gen = {id: vendor.families for id, vendor in GEN_VENDORS.items()}
    catalogue.check_served(get_args(GenOperation), gen)
    catalogue.check_served({"rewrite"}, {"anthropic": Claude.families})
