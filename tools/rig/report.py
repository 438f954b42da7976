"""Reports of the load and chaos programs: figures and their limits."""

import sys
from collections.abc import Iterable
from typing import NamedTuple

MISSED = " !"
"""Printed after a figure beyond its limit, followed by BY_THE_CLOCK if it depends on the machine."""
BY_THE_CLOCK = " (clock)"


class Row(NamedTuple):
    """A line of a report. `most` and `least` are the limits of the figure.

    `clock`: the figure depends on the speed of the machine, so tests do not look at it. `note`: text
    that is printed after the figure.
    """

    name: str
    figure: float | str
    most: float | None = None
    least: float | None = None
    note: str = ""
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
        return f"{self.name:45} {figure:>12}  {', '.join(wanted):10}{mark}{self.note}"


def show(title: str, rows: Iterable[Row]) -> bool:
    """Print the rows. Returns whether all figures are within their limits."""
    rows = list(rows)
    sys.stdout.write("\n".join([f"== {title}", *map(str, rows)]) + "\n")
    sys.stdout.flush()
    return not any(row.missed for row in rows)
