"""Receipts and usage, as callers read them. Amounts in USD are texts with six decimals."""

from typing import Annotated, Literal

from pydantic import Field

from app.contract.answer import Answer
from app.contract.ledger import CallState
from app.contract.periods import Period

Usd = Annotated[str, Field(pattern=r"^\d+\.\d{6}$")]


class ReceiptCall(Answer):
    """One call to a vendor."""

    model: str
    state: CallState
    samples: int
    cost_usd: Usd
    sent_at: str | None
    finished_at: str | None


class ReceiptPicture(Answer):
    """A picture that was stored."""

    url: str | None
    filename: str


class Receipt(Answer):
    """The cost of one request."""

    id: str
    operation: str
    created_at: str
    cost_usd: Usd
    priced: bool
    replayed: bool
    calls: tuple[ReceiptCall, ...]
    pictures: tuple[ReceiptPicture, ...]


class ReceiptPage(Answer):
    """A page of receipts, the newest first."""

    receipts: tuple[Receipt, ...]
    next_cursor: str | None


class UsedBudget(Answer):
    """A budget and its use; `limit` is None for a unit without a budget, which is reported per month."""

    unit: Literal["USD", "pictures"]
    period: Period
    limit: Usd | int | None
    spent: Usd | int
    reserved: Usd | int
    resets_at: str | None


class Usage(Answer):
    """The budgets of the caller, and what is spent of them."""

    usage: tuple[UsedBudget, ...]
