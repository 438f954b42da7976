"""The routes for receipts and usage: what a caller's requests have cost."""

from typing import Any

from fastapi import APIRouter, Request

from app.api.caller import CurrentCaller
from app.api.exchange import parts
from app.api.openapi.errors import failure, failures
from app.api.paging import PARAMETERS, WRONG, paging
from app.contract.budgets import six_decimals
from app.contract.errors import NotFound
from app.contract.ledger import StoredPicture
from app.contract.periods import iso
from app.contract.receipts import Receipt, ReceiptCall, ReceiptPage, ReceiptPicture, Usage, UsedBudget
from app.ports import Storage
from app.services.budgets import Used
from app.services.receipts import BookedCall, BookedWish

router = APIRouter(prefix="/api/v1", tags=["costs"])

_MISSING = NotFound("Receipt not found")
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The receipt's id, from the header `X-Receipt-Id` or from the list.",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
_RECEIPT: dict[str, Any] = {
    "id": "5f0c1f7a3f0b4b0c9d2f6f1f0c8a7e11",
    "operation": "text-to-image",
    "createdAt": "2026-11-22T06:23:24.120Z",
    "costUsd": "0.040000",
    "priced": True,
    "replayed": False,
    "calls": [
        {
            "model": "imagen-3.0-generate-001",
            "state": "settled",
            "samples": 1,
            "costUsd": "0.040000",
            "sentAt": "2026-11-22T06:23:24.131Z",
            "finishedAt": "2026-11-22T06:23:29.481Z",
        }
    ],
    "pictures": [
        {
            "url": "https://storage.googleapis.com/my-bucket/images/generated/text-to-image/"
            "20261122_062324_img3_text-to-image_0a1b2c3d4e5f60718293a4b5.png",
            "filename": "20261122_062324_img3_text-to-image_0a1b2c3d4e5f60718293a4b5.png",
        }
    ],
}
_USAGE: dict[str, Any] = {
    "usage": [
        {
            "unit": "USD",
            "period": "day",
            "limit": "5.000000",
            "spent": "0.040000",
            "reserved": "0.000000",
            "resetsAt": "2026-11-23T00:00:00Z",
        },
        {
            "unit": "pictures",
            "period": "month",
            "limit": None,
            "spent": 1,
            "reserved": 0,
            "resetsAt": "2026-12-01T00:00:00Z",
        },
    ]
}


def _ok(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


@router.get(
    "/receipts",
    summary="List your receipts",
    openapi_extra={"parameters": PARAMETERS},
    responses={
        200: _ok("A page of receipts", {"receipts": [_RECEIPT], "nextCursor": None}),
        400: failure(400, "A wrong limit or cursor", WRONG),
        **failures(401, 500, 503),
    },
)
async def receipts(request: Request, who: CurrentCaller) -> ReceiptPage:
    """Returns a receipt for each of your requests with at least one call to a vendor, the newest first.

    `nextCursor` leads to the next page. It stays valid when there are new receipts.
    """
    gateway = parts(request.scope)
    limit, cursor = paging(request)
    await gateway.paying.ledger.written()
    page = await gateway.receipts.page(who.id, limit=limit, after=cursor)
    return ReceiptPage(
        receipts=tuple(_receipt(one, gateway.storage) for one in page.receipts),
        next_cursor=str(page.next) if page.next else None,
    )


@router.get(
    "/receipts/{id}",
    summary="Read a receipt",
    openapi_extra={"parameters": [_ID]},
    responses={
        200: _ok("The receipt", _RECEIPT),
        404: failure(404, "You have no such receipt", {"unknown": _MISSING}),
        **failures(401, 500, 503),
    },
)
async def receipt(request: Request, who: CurrentCaller) -> Receipt:
    """Returns what one of your requests has cost, call by call."""
    gateway = parts(request.scope)
    await gateway.paying.ledger.written()
    found = await gateway.receipts.one(who.id, request.path_params["id"])
    if not found:
        raise NotFound(_MISSING.message)
    return _receipt(found, gateway.storage)


@router.get(
    "/usage",
    summary="See what you have spent",
    responses={200: _ok("What is spent of each budget", _USAGE), **failures(401, 500, 503)},
)
async def usage(request: Request, who: CurrentCaller) -> Usage:
    """Returns what you have spent of each of your budgets.

    For a unit without a budget it returns what you have spent this month, with `limit` null.
    """
    gateway = parts(request.scope)
    await gateway.paying.ledger.written()
    used = await gateway.budgets.usage(who.scopes)
    return Usage(usage=tuple(map(_used, used)))


def _receipt(booked: BookedWish, storage: Storage) -> Receipt:
    return Receipt(
        id=booked.id,
        operation=booked.operation,
        created_at=iso(booked.created_at, "milliseconds"),
        cost_usd=six_decimals(booked.charged),
        priced=booked.priced,
        replayed=booked.replayed,
        calls=tuple(map(_call, booked.calls)),
        pictures=tuple(_picture(one, storage) for one in booked.pictures),
    )


def _call(call: BookedCall) -> ReceiptCall:
    return ReceiptCall(
        model=call.model,
        state=call.state,
        samples=call.samples,
        cost_usd=six_decimals(call.charged),
        sent_at=_time(call.sent_at),
        finished_at=_time(call.done_at),
    )


def _time(at: int | None) -> str | None:
    return None if at is None else iso(at, "milliseconds")


def _picture(picture: StoredPicture, storage: Storage) -> ReceiptPicture:
    """Returns a picture of a receipt. A private picture has no URL; its `bucket` is a folder with a slash."""
    private = "/" in picture.bucket
    return ReceiptPicture(
        url=None if private else storage.url(picture.name, bucket=picture.bucket),
        filename=picture.name.rpartition("/")[2],
    )


def _used(used: Used) -> UsedBudget:
    def amount(value: int) -> str | int:
        return six_decimals(value) if used.unit == "usd" else value

    return UsedBudget(
        unit="USD" if used.unit == "usd" else "pictures",
        period=used.period,
        limit=None if used.limit is None else amount(used.limit),
        spent=amount(used.spent),
        reserved=amount(used.reserved),
        resets_at=None if used.resets_at is None else iso(used.resets_at),
    )
