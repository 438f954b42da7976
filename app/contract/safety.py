"""The support codes of a vendor's safety filter: category, side and a hint for each."""

import re
from dataclasses import dataclass
from typing import Literal

Side = Literal["prompt", "output"]

_HINTS = {
    "Child": "Avoid content that involves children",
    "Celebrity": "Avoid naming or depicting celebrities and other public figures",
    "Celebrity or child": "Avoid depicting children and public figures",
    "Dangerous": "Avoid dangerous or harmful content in prompts",
    "Hate": "Avoid hateful or discriminatory content in prompts",
    "Other": "Rephrase the prompt and try again",
    "People/Face": "Avoid people and faces, or allow them with personGeneration",
    "Personal Info": "Avoid personal information in prompts",
    "Prohibited": "Avoid prohibited content in prompts",
    "Sexual": "Avoid sexual or suggestive content in prompts",
    "Third-party": "Avoid brands, characters and other third-party content in prompts",
    "Toxic": "Avoid toxic or offensive language in prompts",
    "Violence": "Avoid violent or graphic content in prompts",
    "Vulgar": "Avoid vulgar language in prompts",
}

# Some codes are used for both sides. They are reported for the prompt, because the caller can change it.
_CODES: dict[int, tuple[str, Side]] = {
    58061214: ("Child", "prompt"),
    17301594: ("Child", "output"),
    29310472: ("Celebrity", "prompt"),
    15236754: ("Celebrity", "output"),
    64151117: ("Celebrity or child", "prompt"),
    62263041: ("Dangerous", "prompt"),
    57734940: ("Hate", "prompt"),
    22137204: ("Hate", "output"),
    42876398: ("Other", "prompt"),
    29578790: ("Other", "output"),
    74803281: ("Other", "output"),
    39322892: ("People/Face", "output"),
    92201652: ("Personal Info", "prompt"),
    89371032: ("Prohibited", "prompt"),
    49114662: ("Prohibited", "output"),
    72817394: ("Prohibited", "output"),
    90789179: ("Sexual", "prompt"),
    63429089: ("Sexual", "output"),
    43188360: ("Sexual", "output"),
    35561574: ("Third-party", "prompt"),
    35561575: ("Third-party", "prompt"),
    78610348: ("Toxic", "prompt"),
    61493863: ("Violence", "prompt"),
    56562880: ("Violence", "output"),
    32635315: ("Vulgar", "prompt"),
}

_CODE = re.compile(r"\b\d{8}\b")


@dataclass(frozen=True, slots=True)
class Block:
    """One refusal. `code`, `category`, `side` and `hint` are None if the vendor gave no known code."""

    reason: str
    code: int | None = None
    category: str | None = None
    side: Side | None = None
    hint: str | None = None

    @property
    def message(self) -> str:
        if self.category is None:
            return "Request blocked by safety filters"
        return f"Request blocked by safety filters: {self.category} in {self.side}"


def block(*texts: str) -> Block:
    """Returns the block that the support codes in the vendor's `texts` mean: the first known code decides.

    The reason consists of the codes. The vendor's own words are left out: they can contain project ids.
    """
    codes = list(dict.fromkeys(int(code) for text in texts for code in _CODE.findall(text)))
    if not codes:
        return Block("The model returned no picture")
    reason = "Support codes: " + ", ".join(str(code) for code in codes)
    code = next((code for code in codes if code in _CODES), None)
    if code is None:
        return Block(reason)
    category, side = _CODES[code]
    return Block(reason, code, category, side, _HINTS[category])
