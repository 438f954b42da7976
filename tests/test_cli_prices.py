"""`python -m app.cli prices`."""

from pathlib import Path

import pytest

from app import cli
from app.contract.models import load_catalogue
from app.contract.prices import load_prices


def test_the_shipped_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prices"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "model"
    assert {line.split()[0] for line in lines} == load_prices(load_catalogue()).models
    assert not [line for line in lines if "no price" in line]
    shown = [" ".join(line.split()) for line in lines]
    assert "amazon.titan-image-generator-v2:0 all 1K premium image 0.012000 2025-03-06 2026-11-22" in shown
    assert (
        "gemini-3-pro-image all 4K (2000 tokens) output_image_mtok 120.000000 2025-11-29 2026-11-22" in shown
    )


FILE = """
[[price]]
models = ["imagen-4.0-fast-generate-001"]
operations = ["text-to-image"]
image = 20_000
valid_from = 2026-01-01
source = "a contract"
checked = 2026-01-02

[[price]]
models = ["claude-haiku-4-5"]
input_mtok = 1_000_001
output_mtok = 15_000_000
valid_from = 2026-01-01
source = "a contract"
checked = 2026-01-02

[unpriced]
"virtual-try-on-001" = "the contract does not say"
"""
PRINTED = """\
model                         operation      tier  unit               USD  valid from  checked
imagen-4.0-fast-generate-001  text-to-image  all   image         0.020000  2026-01-01  2026-01-02
claude-haiku-4-5              all            all   input_mtok    1.000001  2026-01-01  2026-01-02
claude-haiku-4-5              all            all   output_mtok  15.000000  2026-01-01  2026-01-02
virtual-try-on-001            no price: the contract does not say
"""


def test_a_file_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gateway itself need not be configured."""
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    monkeypatch.setenv("PRICES_FILE", str(path))
    monkeypatch.setenv("CLOUD", "live")
    monkeypatch.setenv("DATABASE_URL", "mysql://nowhere")
    assert cli.main(["prices"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(PRINTED)
    missing = printed.removeprefix(PRINTED).splitlines()
    assert all(line.endswith("no price: not in the file") for line in missing)
    ids = {line.split()[0] for line in missing}
    assert {"gemini-3-pro-image", "us.anthropic.claude-haiku-4-5-20251001-v1:0"} < ids
    assert not ids & {"claude-haiku-4-5", "virtual-try-on-001"}


@pytest.mark.parametrize("variable", ["MODELS_FILE", "PRICES_FILE"])
@pytest.mark.parametrize("text", [None, "[[", "colour = 1"])
def test_a_wrong_file_is_named(
    variable: str,
    text: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "wrong.toml"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv(variable, str(path))
    assert cli.main(["prices"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{variable}: ")
