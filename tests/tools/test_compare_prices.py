"""The comparison with LiteLLM's table: `litellm_sample.json` has its rows for our models as of 2026-11-21."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.compare_prices import main

SAMPLE = Path(__file__).with_name("litellm_sample.json")
ONE_PRICE = "(one price for all sizes and qualities there)"


def compare(folder: Path, capsys: pytest.CaptureFixture[str], **changed: Any) -> tuple[int, list[str]]:
    """Returns the exit status and the lines for the sample with other rows; None takes a row away."""
    table = json.loads(SAMPLE.read_text("utf-8")) | changed
    path = folder / "table.json"
    path.write_text(json.dumps({key: row for key, row in table.items() if row is not None}))
    status = main(str(path))
    return status, capsys.readouterr().out.splitlines()


def test_every_difference_of_the_sample_has_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = compare(tmp_path, capsys)
    assert (status, [line for line in lines if "UNEXPLAINED" in line]) == (0, [])
    for line in (
        f"amazon.titan-image-generator-v2:0: image 1K standard USD 0.01 here, 0.008 there {ONE_PRICE}",
        f"amazon.nova-canvas-v1:0: image 2K premium USD 0.08 here, 0.06 there {ONE_PRICE}",
        f"vertex_ai/gemini-3-pro-image: image 4K USD 0.24 here, 0.134 there {ONE_PRICE}",
        f"gemini/gemini-3.1-flash-image: image 1K USD 0.0672 here, 0.045 there {ONE_PRICE}",
        "1024-x-1024/max-steps/stability.stable-diffusion-xl-v1: image USD 0.04 here, 0.08 there "
        "(more than 50 steps, which the model refuses)",
        "imagen-4.0-generate-001: not in the table (retired: tables drop such models)",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith(("aihubmix/", "us.anthropic.", "gemini-2.5"))]


@pytest.mark.parametrize(
    ("key", "row", "line"),
    [
        pytest.param(
            "virtual-try-on-001",
            {"output_cost_per_image": 0.07},
            "virtual-try-on-001: image USD 0.06 here, 0.07 there (UNEXPLAINED)",
            id="another price",
        ),
        pytest.param(
            "amazon.titan-image-generator-v2:0",
            {"output_cost_per_image": 0.009},
            "amazon.titan-image-generator-v2:0: image 1K standard USD 0.01 here, 0.009 there (UNEXPLAINED)",
            id="the price of no tier",
        ),
        pytest.param(
            "us.anthropic.claude-sonnet-4-6",
            {"input_cost_per_token": 3e-06},
            "us.anthropic.claude-sonnet-4-6: input_mtok USD 3.3 here, 3 there (UNEXPLAINED)",
            id="another price of tokens",
        ),
        pytest.param(
            "vertex_ai/gemini-nano-banana-2.1",
            {"output_cost_per_image_token": 6e-05},
            "vertex_ai/gemini-nano-banana-2.1: output_image_mtok USD 30 here, 60 there (UNEXPLAINED)",
            id="another price of pictures' tokens",
        ),
        pytest.param(
            "stability.sd3-5-large-v1:0",
            None,
            "stability.sd3-5-large-v1:0: not in the table (UNEXPLAINED)",
            id="a living model is missing",
        ),
    ],
)
def test_a_new_difference_is_not_explained(
    key: str, row: Any, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = compare(tmp_path, capsys, **{key: row})
    assert status == 1
    assert line in lines
