"""Numbers and flags in forms, which have only text."""

import re

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_MAX_CHARACTERS = 63
"""Of a number. Longer ones have more digits than a double keeps."""


def number_from_text(text: str) -> float | str:
    """Returns the number if the text is decimal notation ("2", "+2.0", ".5", "1e-3"), else the text."""
    return float(text) if len(text) <= _MAX_CHARACTERS and _DECIMAL.fullmatch(text) else text


def flag_from_text(text: str) -> bool | str:
    """Returns the flag if the text is "true" or "false", else the text."""
    return {"true": True, "false": False}.get(text, text)
