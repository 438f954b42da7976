"""The catalogue's own rules, and the file that is shipped."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.contract.models import Families, Operation, load_catalogue

ROW = """
[[model]]
id = "{id}"
vendor = "{vendor}"
family = "{family}"
short = "s"
location = "global"
operations = {operations}
capabilities = {capabilities}
status = "active"
source = "example.com/models"
{more}
"""


def written(folder: Path, *rows: str, defaults: str = "") -> Path:
    path = folder / "models.toml"
    path.write_text(f"[defaults]\n{defaults}\n" + "".join(rows))
    return path


def row(
    id: str,
    *operations: str,
    vendor: str = "google",
    family: str = "gemini",
    capabilities: Sequence[str] = (),
    successor: str | None = None,
) -> str:
    return ROW.format(
        id=id,
        vendor=vendor,
        family=family,
        operations=list(operations or ["image-edit"]),
        capabilities=list(capabilities),
        more=f'successor = "{successor}"' if successor else "",
    )


def test_every_operation_has_a_model_and_every_chain_can_do_it() -> None:
    catalogue = load_catalogue()
    assert len(catalogue.defaults) == 9
    for operation, id in catalogue.defaults.items():
        assert all(operation in model.operations for model in catalogue.chain(id)), operation


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param([row("a"), row("a")], "listed twice: a", id="twice"),
        pytest.param([row("a", successor="b")], "not models: b", id="unknown successor"),
        pytest.param([row("a", successor="b"), row("b", successor="a")], "circle: a → b → a", id="circle"),
        pytest.param(
            [row("a", successor="b"), row("b", "image-customize")],
            "b cannot do all that a can",
            id="successor that cannot",
        ),
        pytest.param(
            [row("a", "text-to-image", "image-edit", successor="b"), row("b", "text-to-image")],
            "b cannot do all that a can",
            id="successor that can do one of two",
        ),
        pytest.param(
            [row("a").replace("example.com/models", "section 1")],
            r"(?s)model\.0\.source\n.*must be a public page",
            id="source that nobody can open",
        ),
        pytest.param(
            [row("a").replace("short", "shrot")], r"(?s)model\.0\.shrot\n.*Extra inputs", id="unknown key"
        ),
        pytest.param(
            [row("a"), row("b", capabilities=["seed", "time-travel"])],
            r"(?s)model\.1\.capabilities\.1\n.*'time-travel'",
            id="unknown capability",
        ),
    ],
)
def test_a_catalogue_that_breaks_a_rule_says_which(tmp_path: Path, rows: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_catalogue(written(tmp_path, *rows))


SERVED: dict[str, Families] = {
    "google": {"imagen": {"text-to-image", "image-edit"}, "gemini": {"image-edit"}},
    "aws": {"titan": {"text2img"}},
}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param([row("a"), row("b", "text-to-image", family="imagen")], None, id="all served"),
        pytest.param([row("a", "text2img", vendor="aws", family="titan")], None, id="others' operation"),
        pytest.param(
            [
                row("a", "text-to-image", family="imagen", successor="b"),
                row("b", "text-to-image", vendor="aws", family="titan"),
            ],
            "b: aws has no family titan that can do text-to-image",
            id="successor of a vendor that cannot",
        ),
        pytest.param(
            [row("a", "text-to-image", "image-edit")],
            "a: google has no family gemini that can do text-to-image",
            id="family that cannot do one of two",
        ),
        pytest.param(
            [row("a", family="titan")], "a: google has no family titan", id="another vendor's family"
        ),
        pytest.param([row("a", vendor="acme")], "a: acme has no family gemini", id="unknown vendor"),
    ],
)
def test_every_model_must_be_served(tmp_path: Path, rows: list[str], says: str | None) -> None:
    operations: tuple[Operation, ...] = ("text-to-image", "image-edit")
    defaults = 'text-to-image = "x"\nimage-edit = "x"'
    catalogue = load_catalogue(
        written(tmp_path, row("x", *operations, family="imagen"), *rows, defaults=defaults)
    )
    if says is None:
        catalogue.check_served(operations, SERVED)
    else:
        with pytest.raises(ValueError, match=says):
            catalogue.check_served(operations, SERVED)


def test_every_operation_must_have_a_default(tmp_path: Path) -> None:
    catalogue = load_catalogue(written(tmp_path, row("a"), defaults='image-edit = "a"'))
    with pytest.raises(ValueError, match="defaults are missing: image-upscale, text2img"):
        catalogue.check_served({"image-edit", "text2img", "image-upscale"}, {})


def test_a_default_that_cannot_do_its_operation_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, row("a"), defaults='image-upscale = "a"')
    with pytest.raises(ValueError, match="a is the default for image-upscale, but cannot do it"):
        load_catalogue(path)
