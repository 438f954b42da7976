"""/gen: rewrite the prompt if asked, draw, each with whichever model serves, and store if asked."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.contract.errors import GatewayError, UpstreamFailed
from app.contract.gen import (
    INIT_IMAGE_SIZES,
    MAX_PROMPT_CHARACTERS,
    GenAnswer,
    GenRequest,
    Img2Img,
    InvalidGen,
    Metadata,
    fit_words,
    refusal,
)
from app.contract.models import Catalogue, Model
from app.contract.pictures import NotAPicture, Picture, PictureTooLarge
from app.contract.pixels import fit, normalise
from app.logs import causes
from app.ports import Generation, Provider
from app.services.budget import Budget
from app.services.chain import Chain
from app.services.gallery import Gallery
from app.threads import off_loop

log = structlog.get_logger()


class Rewriter(Protocol):
    """A language model that improves prompts."""

    async def rewrite(self, prompt: str, model: Model, /, *, language: str | None, characters: int) -> str:
        """The prompt in better English. Raises `contract.errors`, ModelGone among them."""


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A picture, the text that was drawn, and who drew it."""

    picture: Picture
    text: str
    model: Model


@dataclass(frozen=True, slots=True)
class Gen:
    """`chain` finds who draws; `rewrite_chain` who rewrites, and follows always, for no caller names Claude.

    `budget` counts pictures that are being drawn, `rewrites` prompts that are being rewritten: a slow Claude
    does not delay requests without a rewrite. `rewrite_seconds` is the time limit of a rewrite.
    """

    provider: Provider[GenRequest]
    rewriter: Rewriter
    gallery: Gallery
    chain: Chain
    rewrite_chain: Chain
    budget: Budget
    rewrites: Budget
    catalogue: Catalogue
    rewrite_seconds: float = 20

    async def make(self, request: GenRequest) -> GenAnswer:
        """Make the picture of one request, and store it when it asks for a URL. Raises `contract.errors`."""
        named = self.catalogue.defaults[request.mode]
        drawer = self._drawer(request, named)
        if request.response_format == "url":
            await self.gallery.check()
        if isinstance(request, Img2Img):
            request = await _settle(request)
        rewritten = await self._rewrite(request, drawer) if request.regen_prompt else None
        async with self.budget.hold(1):
            if request.response_format == "url":
                await self.gallery.check()  # again: there may be minutes between
            drawing = await self._draw(request, rewritten or request.prompt, named)
            image_url = await self._store(request, drawing) if request.response_format == "url" else None
        width, height = drawing.picture.size
        return GenAnswer(
            image_base64=None if image_url else drawing.picture,
            image_url=image_url,
            enhanced_prompt=drawing.text,
            model_used=drawing.model.id,
            metadata=Metadata(
                model=drawing.model.id,
                requested_model=None if drawing.model.id == named else named,
                aspect_ratio=request.aspect_ratio,
                dimensions=f"{width}x{height}",
                prompt_enhanced=rewritten is not None,
            ),
        )

    def _drawer(self, request: GenRequest, named: str) -> Model:
        """Returns the first model that can serve the request. Raises InvalidGen, before anything is paid."""
        problem: InvalidGen | None = None
        for model in self.chain.candidates(named):
            if not (problem := refusal(request, model)):
                return model
        raise problem or UpstreamFailed

    async def _draw(self, request: GenRequest, text: str, named: str) -> _Drawing:
        """Draw as much of the text as the model takes, which is known when it is found who serves."""

        async def draw(model: Model) -> tuple[str, Generation]:
            words = _fit(text, model)
            return words, await self.provider.run(request.model_copy(update={"prompt": words}), model)

        def takes(model: Model) -> bool:
            return refusal(request, model) is None

        model, (words, generation) = await self.chain.run(named, draw, takes)
        return _Drawing(generation.pictures[0], words, model)

    async def _store(self, request: GenRequest, drawing: _Drawing) -> str:
        (stored,) = await self.gallery.store((drawing.picture,), request.mode, drawing.model)
        return stored.url

    async def _rewrite(self, request: GenRequest, drawer: Model) -> str | None:
        """The rewritten prompt, or None when that failed and the caller's own will do.

        It will not do in Vietnamese, which the image models do not read: then UpstreamFailed is raised.
        """

        async def rewrite(model: Model) -> str:
            return await self.rewriter.rewrite(
                request.prompt,
                model,
                language=request.prompt_language,
                characters=drawer.prompt_characters or MAX_PROMPT_CHARACTERS,
            )

        try:
            async with asyncio.timeout(self.rewrite_seconds), self.rewrites.hold(1):
                _, text = await self.rewrite_chain.run(self.catalogue.defaults["rewrite"], rewrite)
                return text
        except (GatewayError, TimeoutError) as exc:
            if request.prompt_language == "vi":
                raise UpstreamFailed from exc
            log.warning("rewrite failed: using the caller's prompt", cause=causes(exc))
            return None


async def _settle(request: Img2Img) -> Img2Img:
    """The same with an init_image that is known to be whole, upright and without metadata, resized if asked.

    Done before anything is paid. Raises InvalidGen.
    """
    try:
        image = await off_loop(normalise, request.init_image)
        if request.auto_resize:
            image = await off_loop(fit, image, INIT_IMAGE_SIZES[request.aspect_ratio])
    except (NotAPicture, PictureTooLarge) as exc:
        raise InvalidGen("Invalid init_image", "The 'init_image' field is a damaged image") from exc
    return request.model_copy(update={"init_image": image})


def _fit(text: str, model: Model) -> str:
    return fit_words(text, model.prompt_characters) if model.prompt_characters else text
