"""Keeps responses for repeated requests, and recognises a repeated request."""

import asyncio
import hashlib
from collections.abc import Mapping

import orjson
import structlog
from pydantic import BaseModel

from app.contract.errors import UpstreamFailed
from app.contract.models import Model
from app.logs import causes
from app.pictures.blob import Blob, Blobs
from app.pictures.in_json import JsonWriter
from app.pictures.picture import EXTENSIONS, GcsUri, Picture
from app.ports import Place, PrivateStore
from app.services.finding import PRIVATE

_KEEP_SECONDS = 10.0
_VERSION = "1"
"""The version of fingerprints. Fingerprints of different versions never match."""

log = structlog.get_logger()


class PrivateLanding:
    """Keeps the pictures of one response in the private store. Implements `app.ports.Landing`.

    Adds the name of each kept picture to `names`. A picture that cannot be kept is only logged.
    """

    def __init__(self, private: PrivateStore, names: dict[Blob, str], blobs: Blobs) -> None:
        self.blobs = blobs
        self._private = private
        self._names = names
        self._places: dict[Blob, tuple[Place, int]] = {}

    def place(self, model: Model, call_id: str, /) -> Place:
        return Place(PRIVATE, f"{call_id}-", call_id)

    async def land(self, picture: Picture, place: Place, /, *, later: bool = False) -> None:
        number = sum(other == place for other, _ in self._places.values())
        self._places[picture.blob] = place, number
        if not later:
            await self._keep(picture, place, number)

    async def replace(self, raw: Picture, picture: Picture, /) -> None:
        place, number = self._places[raw.blob]
        await self._keep(picture, place, number)
        self.discard(raw)

    async def _keep(self, picture: Picture, place: Place, number: int) -> None:
        name = f"{place.stem}{number}.{EXTENSIONS[picture.mime_type]}"
        try:
            async with asyncio.timeout(_KEEP_SECONDS):
                await self._private.keep(name, picture)
        except Exception as exc:  # noqa: BLE001 - the caller gets the picture all the same
            log.warning("a picture cannot be kept for replays", name=name, cause=causes(exc))
        else:
            self._names[picture.blob] = name

    def discard(self, picture: Picture, /) -> None:
        self._names.pop(picture.blob, None)
        picture.blob.close()


def answer_to_text(body: JsonWriter, names: Mapping[Blob, str]) -> str | None:
    """Returns a response as text with the names of its pictures, or None if one of them is not kept."""
    if any(blob not in names for blob in body.blobs):
        return None
    pictures = [names[blob] for blob in body.blobs]
    return orjson.dumps({"parts": [part.decode() for part in body.parts], "pictures": pictures}).decode()


async def answer_from_text(text: str, private: PrivateStore, blobs: Blobs) -> JsonWriter:
    """Returns the response from the text that `answer_to_text` has returned.

    Raises UpstreamFailed if a picture is gone, and what the store raises.
    """
    answer = orjson.loads(text)
    names, found = answer["pictures"], dict[str, Picture]()
    for call_id in {name.partition("-")[0] for name in names}:
        found |= await private.find(call_id, blobs)
    if missing := [name for name in names if name not in found]:
        log.error("pictures that were kept for replays are gone", names=missing)
        raise UpstreamFailed
    return JsonWriter.of(answer["parts"], [found[name].blob for name in names])


def fingerprint(request: BaseModel) -> str:
    """Returns the same text for equal requests, even if one is JSON and one a form. Blocks."""
    text = orjson.dumps(_plain(request), option=orjson.OPT_SORT_KEYS)
    return f"{_VERSION}:{hashlib.sha256(text).hexdigest()}"


def _plain(value: object) -> object:
    match value:
        case Picture():
            return {"picture": value.blob.sha256().hex()}
        case GcsUri():
            return value.uri
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        case tuple() | list():
            return [_plain(one) for one in value]
        case int() if not -(2**63) <= value < 2**63:
            return str(value)
        case _:
            return value
