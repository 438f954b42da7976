"""What the vendors charge: the most that a call can cost, before it is sent, and what it did cost.

The data is `app/prices.toml`, or the file that `PRICES_FILE` names. All amounts are integers of micro-USD,
rounded up.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from app.contract.models import Catalogue, Operation

Size = Literal["512", "1K", "2K", "4K"]
Quality = Literal["standard", "premium"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
SIZES: tuple[Size, ...] = get_args(Size)
QUALITIES: tuple[Quality, ...] = get_args(Quality)

# Tokens to reserve for parts of a call that only the vendor's answer counts. No vendor promises these limits.
SOURCE_TOKENS = 1290  # for a picture that is sent: 1120 for Gemini 3, 1290 for Gemini 2.5
THOUGHT_TOKENS = 2000  # for thinking before a picture is made: 300 to 900 are usual
FRAME_TOKENS = 100  # for what the vendor adds to the texts of a call


def today() -> date:
    """Returns the day whose prices are in force, in UTC."""
    return datetime.now(UTC).date()


MicroUsd = Annotated[int, Field(strict=True, ge=0)]
Tokens = Annotated[int, Field(strict=True, gt=0)]


@dataclass(frozen=True, slots=True)
class Order:
    """The properties of a call that its price depends on.

    `model` is the id that is sent to the vendor; for Claude, the platform's id (CLAUDE_VIA). `day` is the day
    of the call in UTC. `size` and `quality` are those of each picture. `text_bytes` is the length in UTF-8 of
    all texts that are sent, including instructions; `sources` is the number of pictures that are sent.
    `max_output_tokens` is the limit that is sent with a rewrite.
    """

    model: str
    operation: Operation
    day: date
    samples: int = 1
    size: Size = "1K"
    quality: Quality = "standard"
    text_bytes: int = 0
    sources: int = 0
    max_output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a vendor reports.

    `output` counts text and thoughts, `images` counts pictures. If the vendor reports one number for both, it
    is `output`, and `images` is None.
    """

    input: int
    output: int = 0
    images: int | None = None


class Price(BaseModel):
    """One entry of the file. The comments of the file explain the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    operations: tuple[Operation, ...] = ()
    sizes: tuple[Size, ...] = ()
    qualities: tuple[Quality, ...] = ()
    image: MicroUsd | None = None
    input_mtok: MicroUsd | None = None
    output_mtok: MicroUsd | None = None
    output_image_mtok: MicroUsd | None = None
    image_tokens: dict[Size, Tokens] = {}
    valid_from: date
    source: str
    checked: date

    @model_validator(mode="after")
    def _has_one_unit(self) -> Self:
        tokens = (self.input_mtok, self.output_mtok)
        if None in tokens if self.image is None else tokens != (None, None):
            raise ValueError("needs either image, or input_mtok and output_mtok")
        if (self.output_image_mtok is None) != (not self.image_tokens):
            raise ValueError("output_image_mtok and image_tokens go together")
        if self.image is not None and self.image_tokens:
            raise ValueError("has a price for the picture and one for its tokens")
        if self.image is None and (self.sizes or self.qualities):
            raise ValueError("sizes and qualities belong to image; sizes in tokens are given by image_tokens")
        return self

    def cells(self) -> Iterator["Cell"]:
        """Yields the combinations that this is the price of."""
        sizes = self.sizes or tuple(self.image_tokens) or SIZES
        return product(self.models, self.operations or OPERATIONS, sizes, self.qualities or QUALITIES)

    def of_tokens(self, usage: Usage) -> int:
        """Returns the price of the tokens."""
        rates = (self.input_mtok or 0, self.output_mtok or 0, self.output_image_mtok or 0)
        counts = (usage.input, usage.output, usage.images or 0)
        return -(-sum(rate * count for rate, count in zip(rates, counts, strict=True)) // 1_000_000)

    def with_images(self, usage: Usage, order: Order, pictures: int) -> Usage:
        """Returns the usage with the tokens of pictures in `images`.

        If the vendor reports one number for all tokens, each picture counts the documented tokens.
        """
        if usage.images is not None or not self.image_tokens:
            return usage
        images = min(usage.output, pictures * self.image_tokens[order.size])
        return Usage(usage.input, usage.output - images, images)

    def allowed(self, order: Order, pictures: int) -> Usage:
        """Returns the most tokens that an order takes of which so many pictures are made."""
        input = order.samples * (order.text_bytes + FRAME_TOKENS + order.sources * SOURCE_TOKENS)
        if not self.image_tokens:  # a token is at least one byte of text
            return Usage(input, order.max_output_tokens)
        return Usage(input, pictures * THOUGHT_TOKENS, pictures * self.image_tokens[order.size])


Cell = tuple[str, Operation, Size, Quality]


class Prices(BaseModel):
    """The file. `unpriced` has a reason for each model without a price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    price: tuple[Price, ...] = ()
    unpriced: dict[str, str] = {}
    _entries: dict[Cell, list[Price]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _index(self) -> Self:
        for price in self.price:
            for cell in price.cells():
                entries = self._entries.setdefault(cell, [])
                if any(other.valid_from == price.valid_from for other in entries):
                    raise ValueError(f"{', '.join(cell)} has two prices from {price.valid_from}")
                if cell[0] in self.unpriced:
                    raise ValueError(f"{cell[0]} has a price, and is listed as unpriced")
                entries.append(price)
        return self

    @property
    def models(self) -> frozenset[str]:
        """The ids of models with a price, or with a reason why they have none."""
        return frozenset(self.unpriced).union(*(price.models for price in self.price))

    def worst_cost(self, order: Order) -> int | None:
        """Returns the micro-USD to reserve before the call is sent; None if the call has no price.

        Each byte of text counts as a token, so the reservation for text is several times its cost.
        """
        price = self._in_force(order)
        if price is None:
            return None
        if price.image is not None:
            return order.samples * price.image
        return price.of_tokens(price.allowed(order, order.samples))

    def cost(self, order: Order, pictures: int = 0, usage: Usage | None = None) -> int | None:
        """Returns the cost of the call in micro-USD; None if the call has no price.

        `pictures` is the number of pictures that the vendor delivered. Pictures that a filter removed cost
        nothing. If the price is per token, `usage` is what the vendor reports; without it, the cost is what
        was reserved for the input and for these pictures. The cost exceeds the reservation only if the vendor
        reports more tokens than `Price.allowed` returns.
        """
        price = self._in_force(order)
        if price is None:
            return None
        if price.image is not None:
            return pictures * price.image
        if usage is None:
            return price.of_tokens(price.allowed(order, pictures))
        return price.of_tokens(price.with_images(usage, order, pictures))

    def _in_force(self, order: Order) -> Price | None:
        entries = self._entries.get((order.model, order.operation, order.size, order.quality), [])
        begun = (price for price in entries if price.valid_from <= order.day)
        return max(begun, key=lambda price: price.valid_from, default=None)


def platform_ids(catalogue: Catalogue) -> frozenset[str]:
    """Returns every id that the gateway can send to a vendor for a model of the catalogue."""
    ids = ((model.id, model.bedrock_id, model.vertex_id) for model in catalogue.model)
    return frozenset(id for names in ids for id in names if id)


def load_prices(catalogue: Catalogue, path: Path | None = None) -> Prices:
    """Read the prices. Raises ValueError, which names the entry, if the file breaks a rule.

    Models of the catalogue can be missing. If `path` is given, ids that are not in the catalogue are refused,
    since they are misspelt. The shipped file can have models that the catalogue in use does not have.
    """
    text = (path or Path(__file__).parents[1] / "prices.toml").read_text("utf-8")
    data = tomllib.loads(text)
    try:
        prices = Prices.model_validate(data)
    except ValidationError as exc:
        raise ValueError("; ".join(_sentences(exc, data))) from exc
    if path and (unknown := prices.models - platform_ids(catalogue)):
        raise ValueError(f"prices of unknown models: {', '.join(sorted(unknown))}")
    return prices


def _sentences(exc: ValidationError, data: dict[str, Any]) -> Iterator[str]:
    for error in exc.errors(include_url=False):
        where = list(error["loc"])
        if len(where) > 1 and where[0] == "price":
            entry = data["price"][where[1]]
            models = entry.get("models") if isinstance(entry, dict) else None
            named = ", ".join(map(str, models)) if isinstance(models, list) else ""
            where[:2] = [f"price of {named}" if named else f"price {where[1]}"]
        yield ": ".join([*map(str, where), error["msg"].removeprefix("Value error, ")])
