"""Support codes become what callers are told; the vendor's own words do not."""

import pytest

from app.contract.safety import Block, block


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        pytest.param(
            ["removed 2 generated images. Support codes: 56562880, 63429089"],
            Block(
                "Support codes: 56562880, 63429089",
                56562880,
                "Violence",
                "output",
                "Avoid violent or graphic content in prompts",
            ),
            id="first of two",
        ),
        pytest.param(
            ["in project demo-1: 58061214"],
            Block(
                "Support codes: 58061214", 58061214, "Child", "prompt", "Avoid content that involves children"
            ),
            id="bare code",
        ),
        pytest.param(["code 99999999"], Block("Support codes: 99999999"), id="unknown code"),
        pytest.param(["projects/secret-42 refused"], Block("The model returned no picture"), id="no code"),
        pytest.param([], Block("The model returned no picture"), id="nothing"),
    ],
)
def test_block_reads_codes_only(texts: list[str], told: Block) -> None:
    assert block(*texts) == told
