"""Ends of calls and wishes, written at once. The gateway passes the same commands to `Ledger.submit`."""

from collections.abc import Sequence

from app.contract.bookkeeping import Close, Finish
from app.contract.ledger import StoredPicture
from app.storage.ledger import Ledger


async def settle(
    ledger: Ledger,
    call: str,
    *,
    charged: int,
    made: int,
    pictures: Sequence[StoredPicture] = (),
    text: str | None = None,
) -> bool:
    """The vendor served the call: it cost `charged` micro-USD, and made so many pictures or the text.

    Returns False, and changes nothing, if it was settled or void already.
    """
    return await ledger.do(Close(call, "settled", charged, made, tuple(pictures), text))


async def void(ledger: Ledger, call: str) -> bool:
    """The call was surely not served. Returns False if it was settled or void already."""
    return await ledger.do(Close(call, "void"))


async def unknown(ledger: Ledger, call: str) -> bool:
    """The call was sent, and its outcome is not known. Returns False if it has ended already."""
    return await ledger.do(Close(call, "unknown"))


async def abandon(ledger: Ledger, call: str) -> bool:
    """The call was sent, and was cancelled. Returns False if it has ended already."""
    return await ledger.do(Close(call, "abandoned"))


async def finish(
    ledger: Ledger,
    wish: str,
    status: int | None = None,
    body: str | None = None,
    *,
    pictures: Sequence[StoredPicture] = (),
) -> bool:
    """End the wish; its reserved calls are void. Returns whether the answer is kept for replays.

    It is kept if the wish has a key and one of its calls is charged. Without `status` such a wish is
    interrupted: the next request with its key takes it over.
    """
    return await ledger.do(Finish(wish, ledger.process, status, body, tuple(pictures)))
