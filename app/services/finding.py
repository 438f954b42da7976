"""Finds the pictures of calls that were sent: in the bucket, on the spool, or in the private store."""

import re
from collections.abc import Callable, Sequence

import structlog

from app.contract.errors import UpstreamFailed
from app.contract.ledger import PaidCall, Recovered
from app.logs import causes
from app.pictures.blob import Blobs
from app.pictures.picture import EXTENSIONS, Picture
from app.ports import Buckets, PrivateStore, Spooled
from app.services.made import FoundPicture, stored_rows

PRIVATE = "@private"
"""Stands for the private store in the ledger's column for a bucket. No bucket can have this name."""

log = structlog.get_logger()

_END = re.compile(rf"[0-9]{{1,3}}\.({'|'.join(EXTENSIONS.values())})")


class Finder:
    """Finds pictures of calls in all places where they can be.

    `new_blobs` returns a scope of blobs for pictures that are only counted.
    """

    def __init__(
        self, buckets: Buckets, spool: Spooled, private: PrivateStore, new_blobs: Callable[[], Blobs]
    ) -> None:
        self._buckets = buckets
        self._spool = spool
        self._private = private
        self._new_blobs = new_blobs

    async def find(self, call: PaidCall, blobs: Blobs) -> Sequence[FoundPicture]:
        """Returns the call's pictures, at most one for each picture number. Raises what the stores raise."""
        if call.bucket is None or call.stem is None:
            return ()
        if call.bucket == PRIVATE:
            kept = await self._private.find(call.id, blobs)
            pictures = (FoundPicture(call, name, picture) for name, picture in kept.items())
            return list({one.number: one for one in pictures}.values())
        waiting = await self._spool.find(
            call.bucket, call.stem
        )  # before the bucket: it can upload them meanwhile
        there = await self._stored(call.bucket, call.stem)
        names = dict.fromkeys(waiting, True) | dict.fromkeys(there, False)
        found: dict[int, FoundPicture] = {}
        for name, pending in sorted(names.items()):
            if _END.fullmatch(name.removeprefix(call.stem)):
                one = FoundPicture(call, name, pending=pending)
                if one.number not in found or found[one.number].pending:
                    found[one.number] = one
        return [found[number] for number in sorted(found)]

    async def _stored(self, bucket: str, stem: str) -> list[str]:
        try:
            return await self._buckets.names(bucket, stem)
        except UpstreamFailed as exc:  # the gateway has no permission to list this bucket
            log.warning("a bucket cannot be listed", bucket=bucket, cause=causes(exc))
            return []

    async def fetch(self, one: FoundPicture, blobs: Blobs) -> Picture:
        """Returns the picture, read from its bucket unless `one` holds it. Raises what the store raises."""
        return one.picture or await self._buckets.fetch(one.name, blobs, bucket=one.call.bucket or "")

    async def recover(self, call: PaidCall) -> Recovered:
        """Returns the found pictures of a call whose process has died. Raises what the stores raise."""
        with self._new_blobs() as blobs:
            found = await self.find(call, blobs)
        return Recovered(len(found), stored_rows(found))
