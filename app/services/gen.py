"""Serves /gen: rewrites the prompt on request, makes the picture, and stores it on request."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from app.contract.errors import Busy, GatewayError, RateLimited, UpstreamFailed, UpstreamTimeout
from app.contract.gen import (
    MAX_PROMPT_CHARACTERS,
    GenRequest,
    Img2Img,
    InvalidGen,
    fit_words,
    refusal,
)
from app.contract.models import Catalogue, Model
from app.logs import causes
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge
from app.pictures.pixels import decode, normalise
from app.ports import Call, Progress, Provider
from app.services.chain import Chain
from app.services.finding import Finder
from app.services.gallery import Gallery
from app.services.made import FoundPicture, Made, Stored
from app.threads import off_loop

log = structlog.get_logger()


class Rewriter(Protocol):
    """A language model that improves prompts."""

    async def rewrite(
        self, prompt: str, model: Model, call: Call, /, *, language: str | None, characters: int
    ) -> str:
        """Returns an improved prompt in English, at most `characters` long. Raises `contract.errors`."""


@dataclass(frozen=True, slots=True)
class Gen:
    """Makes the pictures of /gen.

    `providers` make the pictures, by vendor. `chain` calls the image models, `rewrite_chain` the models that
    rewrite prompts. The latter always follows successors, because callers do not name that model. A rewrite
    that takes longer than `rewrite_seconds` has failed.
    """

    providers: Mapping[str, Provider[GenRequest]]
    rewriter: Rewriter
    gallery: Gallery
    chain: Chain
    rewrite_chain: Chain
    catalogue: Catalogue
    finder: Finder
    rewrite_seconds: float = 20

    async def make(self, request: GenRequest, call: Call) -> Made:
        """Make the picture for a request, and store it if it asks for a URL. Raises `contract.errors`."""
        named = self.catalogue.defaults[request.mode]
        image_model = self._image_model(request, named)
        call.wish.check(image_model, request.mode)
        to_store = request.response_format == "url"
        call.progress.keeps_pictures = to_store or call.landing is not None
        if to_store:
            await self.gallery.check()
        if isinstance(request, Img2Img):
            request = await _normalised(request, call)
        rewritten = await self._rewritten(request, image_model, call) if request.regen_prompt else None
        text = rewritten or request.prompt
        if not to_store:
            call.blobs.check()
            model, prompt, picture = await self._draw(request, text, named, call)
            stored: tuple[Stored, ...] = ()
        else:
            if rewritten:
                await self.gallery.check()  # again: a rewrite takes seconds
            with self.gallery.landing(request.mode, call) as landing:
                call = replace(call, landing=landing)
                model, prompt, picture = await self._draw(request, text, named, call)
                stored = await self.gallery.store((picture,), landing)
        return Made(model, named, (picture,), stored, prompt=prompt, prompt_enhanced=rewritten is not None)

    async def recovered(self, request: GenRequest, found: Sequence[FoundPicture], call: Call) -> Made:
        """Returns the result for an interrupted request, from its found picture. Raises StorageDown."""
        (one,) = found[:1]
        model, rewritten = self.catalogue[one.call.model], call.wish.rewritten
        stored = self.gallery.recovered((one,))
        picture = await self.finder.fetch(one, call.blobs)
        return Made(
            model,
            self.catalogue.defaults[request.mode],
            (picture,),
            stored,
            prompt=_fit(rewritten or request.prompt, model),
            prompt_enhanced=rewritten is not None,
        )

    def _image_model(self, request: GenRequest, named: str) -> Model:
        """Returns the first model that can serve the request. Raises InvalidGen if there is none."""
        problem: InvalidGen | None = None
        for model in self.chain.candidates(named):
            if not (problem := refusal(request, model)):
                return model
        raise problem or UpstreamFailed

    async def _draw(
        self, request: GenRequest, text: str, named: str, call: Call
    ) -> tuple[Model, str, Picture]:
        """Returns the model that served, the part of `text` that fits its prompt limit, and the picture."""

        async def draw(model: Model) -> tuple[str, Picture]:
            words = _fit(text, model)
            fitted = request.model_copy(update={"prompt": words})
            generation = await self.providers[model.vendor].run(fitted, model, call)
            return words, generation.pictures[0]

        def takes(model: Model) -> bool:
            return refusal(request, model) is None

        model, (words, picture) = await self.chain.run(named, draw, takes, rehearsed=call.trouble)
        return model, words, picture

    async def _rewritten(self, request: GenRequest, image_model: Model, call: Call) -> str | None:
        if call.wish.rewritten:
            return call.wish.rewritten
        if call.wish.rewrite_lost:
            _use_own_prompt(request, UpstreamTimeout())
            return None
        return await self._rewrite(request, image_model, call)

    async def _rewrite(self, request: GenRequest, image_model: Model, call: Call) -> str | None:
        """Returns the rewritten prompt, or None to use the caller's own. Raises as `_use_own_prompt`."""
        if not call.landing:  # without an Idempotency-Key, a rewrite must not keep the request alive
            call = replace(call, progress=Progress())
        call = replace(call, landing=None)

        async def rewrite(model: Model) -> str:
            return await self.rewriter.rewrite(
                request.prompt,
                model,
                call,
                language=request.prompt_language,
                characters=image_model.prompt_characters or MAX_PROMPT_CHARACTERS,
            )

        try:
            async with asyncio.timeout(self.rewrite_seconds):
                named = self.catalogue.defaults["rewrite"]
                _, text = await self.rewrite_chain.run(named, rewrite, rehearsed=call.trouble)
                return text
        except (GatewayError, TimeoutError) as exc:
            _use_own_prompt(request, exc)
            return None


def _use_own_prompt(request: GenRequest, exc: Exception) -> None:
    """Log a failed rewrite, and return if the caller's own prompt can be used instead.

    The image models do not read Vietnamese. For a Vietnamese prompt this raises UpstreamFailed, or, if no
    call was sent to Claude, Busy or RateLimited.
    """
    if request.prompt_language == "vi":
        if isinstance(exc, Busy) or (isinstance(exc, RateLimited) and not exc.by_vendor):
            raise exc
        raise UpstreamFailed from exc
    log.warning("rewrite failed: using the caller's prompt", cause=causes(exc))


async def _normalised(request: Img2Img, call: Call) -> Img2Img:
    """Returns the request with an init_image that is upright and without metadata.

    Raises InvalidGen if the picture is damaged or too large, and Busy if the call's time is up.
    """
    try:
        async with asyncio.timeout_at(call.answer_by):
            image = await off_loop(_normalised_picture, request.init_image)
    except TimeoutError:
        raise Busy() from None
    except (NotAPicture, PictureTooLarge) as exc:
        raise InvalidGen("Invalid init_image", "The 'init_image' field is a damaged image") from exc
    return request.model_copy(update={"init_image": image})


def _normalised_picture(picture: Picture) -> Picture:
    """Returns the normalised picture. Decodes a PNG, because Bedrock's error for a damaged PNG is unclear."""
    found = normalise(picture)
    if found.mime_type == "image/png":
        decode(found)
    return found


def _fit(text: str, model: Model) -> str:
    return fit_words(text, model.prompt_characters) if model.prompt_characters else text
