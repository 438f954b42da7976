"""`python -m app.cli prices`: prints what each model costs."""

import argparse
from collections.abc import Iterator

from app.cli.command import CommandFailed, Commands, read_catalogue
from app.contract.budgets import six_decimals
from app.contract.prices import Price, load_prices, platform_ids
from app.environment import read_price_settings


def add_to(commands: Commands) -> None:
    prices = commands.add_parser("prices", help="print what each model costs")
    prices.set_defaults(command=_print)


def _print(_options: argparse.Namespace) -> None:
    """Print a line for each price, and a line with the reason for each model without a price."""
    settings = read_price_settings()
    catalogue = read_catalogue(settings)
    try:
        prices = load_prices(catalogue, settings.prices_file)
    except (OSError, ValueError) as exc:
        raise CommandFailed(f"PRICES_FILE: {exc}") from exc
    rows = [("model", "operation", "tier", "unit", "USD", "valid from", "checked")]
    rows += [row for price in prices.price for row in _rows(price)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[4] = row[4].rjust(widths[4])
        print("  ".join(cells).rstrip())
    missing = dict.fromkeys(sorted(platform_ids(catalogue) - prices.models), "not in the file")
    for model, reason in {**prices.unpriced, **missing}.items():
        print(f"{model.ljust(widths[0])}  no price: {reason}")


def _rows(price: Price) -> Iterator[tuple[str, str, str, str, str, str, str]]:
    tier = " ".join([*price.sizes, *price.qualities]) or "all"
    tiers = [
        ("image", tier, price.image),
        ("input_mtok", tier, price.input_mtok),
        ("output_mtok", tier, price.output_mtok),
        *(
            ("output_image_mtok", f"{size} ({tokens} tokens)", price.output_image_mtok)
            for size, tokens in price.image_tokens.items()
        ),
    ]
    for model in price.models:
        for unit, tier, micros in tiers:
            if micros is not None:
                usd = six_decimals(micros)
                operations = " ".join(price.operations) or "all"
                yield model, operations, tier, unit, usd, f"{price.valid_from}", f"{price.checked}"
