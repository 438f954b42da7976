"""`python -m tools.compare_prices FILE` compares app/prices.toml with a public table of prices.

FILE is LiteLLM's model_prices_and_context_window.json. Prints a line for each difference and for each model
that the table lacks, with the reason if it is known. The exit status is 1 if a reason is missing.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.contract.models import Catalogue, load_catalogue
from app.contract.prices import Price, Prices, load_prices

Row = Mapping[str, Any]
Tiers = dict[str, Decimal]

# Other first parts of a key are resellers, or regions with prices of their own.
_VENDORS = {"vertex_ai", "gemini", "bedrock", "1024-x-1024", "50-steps", "max-steps"}
_TOKENS = {
    "input_mtok": "input_cost_per_token",
    "output_mtok": "output_cost_per_token",
    "output_image_mtok": "output_cost_per_image_token",
}
_KNOWN = {
    "1024-x-1024/max-steps/stability.stable-diffusion-xl-v1": "more than 50 steps, which the model refuses",
    "imagen-4.0-upscale-preview": "LiteLLM has no upscaler",
    "imagen-product-recontext-preview-06-30": "LiteLLM does not know this preview",
    "virtual-try-on-preview-08-04": "LiteLLM does not know this preview",
}
_RETIRED = "retired: tables drop such models"
_ONE_PRICE = "one price for all sizes and qualities there"


def differences(prices: Prices, table: Mapping[str, Row], catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Yields each difference as a sentence and its reason, "" if none is known."""
    status = {model.id: model.status for model in catalogue.model}
    for model in sorted({model for price in prices.price for model in price.models}):
        entries = [price for price in prices.price if model in price.models]
        latest = max(price.valid_from for price in entries)
        entries = [price for price in entries if price.valid_from == latest]
        keys = [key for key in table if _names(key, model)]
        if not keys and model in status:  # platforms' own names for Claude are missing in many tables
            reason = _KNOWN.get(model, _RETIRED if status[model] == "retired" else "")
            yield f"{model}: not in the table", reason
        for key in keys:
            for difference, reason in _compare(entries, table[key]):
                yield f"{key}: {difference}", _KNOWN.get(key, reason)
    for model in sorted(prices.unpriced):
        if any(_names(key, model) for key in table):
            yield f"{model}: unpriced here, priced there", ""


def _names(key: str, model: str) -> bool:
    *prefixes, last = key.split("/")
    return last == model and _VENDORS.issuperset(prefixes)


def _compare(entries: list[Price], row: Row) -> Iterator[tuple[str, str]]:
    """A price of one picture there may be any of our tiers; it is not explained if it is none of them."""
    ours = _pictures(entries)
    if (given := row.get("output_cost_per_image")) and ours:
        theirs = Decimal(str(given))
        reason = _ONE_PRICE if any(_same(usd, theirs) for usd in ours.values()) else ""
        for tier, usd in ours.items():
            if not _same(usd, theirs):
                yield f"{tier} {_both(usd, theirs)}", reason
    for unit, name in _TOKENS.items():
        rate = getattr(entries[0], unit)
        if rate is not None and name in row:
            theirs = Decimal(str(row[name])) * 1_000_000
            if not _same(usd := Decimal(rate) / 1_000_000, theirs):
                yield f"{unit} {_both(usd, theirs)}", ""


def _pictures(entries: list[Price]) -> Tiers:
    """Returns what one picture costs in USD, by tier."""
    tiers: Tiers = {}
    for price in entries:
        if price.image is not None:
            tier = " ".join(["image", *price.sizes, *price.qualities])
            tiers[tier] = Decimal(price.image) / 1_000_000
        for size, tokens in price.image_tokens.items():
            tiers[f"image {size}"] = Decimal(tokens * (price.output_image_mtok or 0)) / 10**12
    return tiers


def _same(ours: Decimal, theirs: Decimal) -> bool:
    """Tables round: 0.134 for 0.1344."""
    return abs(ours - theirs) * 100 <= theirs


def _both(ours: Decimal, theirs: Decimal) -> str:
    return f"USD {ours.normalize():f} here, {theirs.normalize():f} there"


def main(path: str) -> int:
    catalogue = load_catalogue()
    table = json.loads(Path(path).read_text("utf-8"))
    found = list(differences(load_prices(catalogue), table, catalogue))
    for difference, reason in found:
        print(f"{difference} ({reason or 'UNEXPLAINED'})")
    return 0 if all(reason for _, reason in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else __doc__)
