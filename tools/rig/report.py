"""Reports of the load and chaos programs: figures, and what is wanted of them."""

import sys
from collections.abc import Iterable
from typing import NamedTuple

MISSED = " !"
"""Follows a figure that is not as wanted. Then comes BY_THE_CLOCK if the figure depends on the machine."""
BY_THE_CLOCK = " (clock)"


class Row(NamedTuple):
    """A line of a report. `most` (or `least`) is what is wanted of the figure.

    `clock`: the figure depends on the speed of the machine, so tests do not look at it. `told`: what is
    printed after the figure.
    """

    name: str
    figure: float | str
    most: float | None = None
    least: float | None = None
    told: str = ""
    clock: bool = False

    @property
    def missed(self) -> bool:
        if isinstance(self.figure, str):
            return False
        over = self.most is not None and self.figure > self.most
        return over or (self.least is not None and self.figure < self.least)

    def __str__(self) -> str:
        figure = self.figure if isinstance(self.figure, str) else f"{self.figure:g}"
        wanted = [f"<= {self.most:g}"] if self.most is not None else []
        wanted += [f">= {self.least:g}"] if self.least is not None else []
        mark = (MISSED + BY_THE_CLOCK * self.clock) if self.missed else ""
        return f"{self.name:45} {figure:>12}  {', '.join(wanted):10}{mark}{self.told}"


def show(title: str, rows: Iterable[Row]) -> bool:
    """Print the rows. Returns whether all is as wanted."""
    rows = list(rows)
    sys.stdout.write("\n".join([f"== {title}", *map(str, rows)]) + "\n")
    sys.stdout.flush()
    return not any(row.missed for row in rows)
