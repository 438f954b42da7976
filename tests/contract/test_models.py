"""The catalogue's own rules, and the file that is shipped."""

from pathlib import Path

import pytest

from app.contract.models import load_catalogue

ROW = """
[[model]]
id = "{id}"
vendor = "google"
family = "gemini"
short = "s"
location = "global"
operations = [{operations}]
status = "active"
source = "here"
{more}
"""


def written(folder: Path, *rows: str, defaults: str = "") -> Path:
    path = folder / "models.toml"
    path.write_text(f"[defaults]\n{defaults}\n" + "".join(rows))
    return path


def row(id: str, *, operations: str = '"image-edit"', successor: str | None = None) -> str:
    return ROW.format(id=id, operations=operations, more=f'successor = "{successor}"' if successor else "")


def test_every_operation_has_a_model_and_every_chain_can_do_it() -> None:
    catalogue = load_catalogue()
    assert len(catalogue.defaults) == 9
    for operation, id in catalogue.defaults.items():
        assert all(operation in model.operations for model in catalogue.chain(id)), operation


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param([row("a"), row("a")], "listed twice: a", id="twice"),
        pytest.param([row("a", successor="b")], "no models: b", id="unknown successor"),
        pytest.param([row("a", successor="b"), row("b", successor="a")], "circle: a → b → a", id="circle"),
        pytest.param(
            [row("a", successor="b"), row("b", operations='"image-upscale"')],
            "b cannot do all that a can",
            id="successor that cannot",
        ),
    ],
)
def test_a_catalogue_that_breaks_a_rule_says_which(tmp_path: Path, rows: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_catalogue(written(tmp_path, *rows))
