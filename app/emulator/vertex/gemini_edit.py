"""Edits that a `:generateContent` request asks for in words ("Edit … remove …"), with or without a mask."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from PIL import Image

from app.emulator import painter, retouch
from app.emulator.vertex.gemini_request import Part

_TASKS: dict[str, retouch.Task] = {
    "remove": "removal",
    "erase": "removal",
    "put": "insertion",
    "insert": "insertion",
    "add": "insertion",
    "background": "background",
    "continue": "outpaint",
    "extend": "outpaint",
}
_TASK = re.compile(rf"\bedit\b.*?\b({'|'.join(_TASKS)})\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit. The mask is not black where pixels can change; `wish` says what to draw there."""

    task: retouch.Task
    original: Image.Image
    mask: Image.Image
    wish: str

    @classmethod
    def read(cls, parts: Sequence[Part], sources: Sequence[Image.Image]) -> Self | None:
        """Returns None unless the last text contains "edit" and, after it, the word of a task.

        A picture after a text with "mask" is the mask. Without such a picture the mask is guessed. The text
        after the first empty line is the wish.
        """
        words, _, wish = next((part.text for part in reversed(parts) if part.text), "").partition("\n\n")
        named = list(zip(_labels(parts), sources, strict=True))
        originals = [picture for label, picture in named if "mask" not in label.lower()]
        masks = [picture for label, picture in named if "mask" in label.lower()]
        found = _TASK.search(words)
        if found is None or not originals:
            return None
        guessed: Literal["foreground", "background"] = (
            "background" if "background" in words.lower() else "foreground"
        )
        mask = masks[0].convert("L") if masks else painter.guess_mask(originals[0].size, guessed)
        return cls(_TASKS[found[1].lower()], originals[0], mask, wish)

    def draw(self, size: tuple[int, int], seed: int) -> Image.Image:
        original = self.original.convert("RGB").resize(size)
        mask = self.mask.resize(size, Image.Resampling.NEAREST)
        return retouch.edit(self.task, original, mask, self.wish, seed=seed)


def _labels(parts: Sequence[Part]) -> Iterator[str]:
    """Yields for each picture the text before it."""
    label = ""
    for part in parts:
        if part.text is not None:
            label = part.text
        else:
            yield label
