"""Calls the requested model, or its successors if the vendor has retired it."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from app.contract.errors import InvalidRequest, ModelGone, UpstreamFailed
from app.contract.models import Catalogue, Model

T = TypeVar("T")

log = structlog.get_logger()

_REMEMBER_SECONDS = 3600


class Chain:
    """Tries a model and then its successors.

    A retired model is remembered for an hour, so that only the first call makes the extra round trip. A
    rehearsed retirement is not remembered. If `follow` is false, a retired model raises InvalidRequest, whose
    message names its successor.
    """

    def __init__(
        self, catalogue: Catalogue, *, follow: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._catalogue = catalogue
        self._follow = follow
        self._clock = clock
        self._gone_until: dict[str, float] = {}

    def candidates(self, model_id: str) -> tuple[Model, ...]:
        """Returns the models that can serve a request for this one, in the order in which they are tried.

        Raises InvalidRequest for a model that is known to be retired, if `follow` is false.
        """
        models = tuple(self._catalogue.chain(model_id))
        if self._follow:
            return models
        if self._is_gone(models[0]):
            raise _retired(models[0])
        return models[:1]

    async def run(
        self,
        model_id: str,
        attempt: Callable[[Model], Awaitable[T]],
        takes: Callable[[Model], bool] = lambda _model: True,
        *,
        rehearsed: str | None = None,
    ) -> tuple[Model, T]:
        """Try the models for which `takes` is true until one serves. Returns that model and its result.

        `rehearsed` is the failure that the request rehearses. Raises InvalidRequest for a retired model if
        `follow` is false, UpstreamFailed if no model is left, and what `attempt` raises except ModelGone.
        """
        gone: ModelGone | None = None
        for model in self.candidates(model_id):
            if takes(model) and not self._is_gone(model):
                try:
                    return model, await attempt(model)
                except ModelGone as exc:
                    gone = exc
                    self._note_gone(model, rehearsed)
            if not self._follow and model.successor:
                raise _retired(model) from gone
        raise UpstreamFailed from gone

    def _is_gone(self, model: Model) -> bool:
        return self._gone_until.get(model.id, 0) > self._clock()

    def _note_gone(self, model: Model, rehearsed: str | None) -> None:
        log.warning("model is gone", model=model.id, successor=model.successor)
        if model.successor and not (rehearsed or "").startswith("retired"):
            self._gone_until[model.id] = self._clock() + _REMEMBER_SECONDS


def _retired(model: Model) -> InvalidRequest:
    return InvalidRequest(f"{model.id} is retired, use {model.successor}")
