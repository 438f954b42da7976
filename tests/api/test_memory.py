"""What a request with a picture of 20 MB holds (issue 3): measured at a gateway in a process of its own."""

import sys

import pytest

from bench.edits import measure


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("case", "form", "successor"),
    [
        pytest.param("image-upscale", True, False, id="the largest answer"),
        pytest.param("product-recontext", False, False, id="JSON"),
        pytest.param("image-edit", True, True, id="composed under a mask"),
    ],
)
def test_memory_stays_under_four_times_the_pictures(case: str, form: bool, successor: bool) -> None:
    assert measure(case, form=form, successor=successor).times < 4
