"""A retired model is followed by its successor, and only the first call finds out."""

from pathlib import Path

import pytest

from app.contract.errors import InvalidRequest, ModelGone, UpstreamFailed, UpstreamTimeout
from app.contract.models import Catalogue, Model, load_catalogue
from app.services.chain import Chain

pytestmark = pytest.mark.anyio

TOML = """
[defaults]
[[model]]
id = "old"
vendor = "google"
family = "imagen"
short = "o"
location = "regional"
operations = ["text-to-image"]
status = "retired"
source = "example.com/models"
successor = "middle"
[[model]]
id = "middle"
vendor = "google"
family = "gemini"
short = "m"
location = "global"
operations = ["text-to-image"]
status = "active"
source = "example.com/models"
successor = "new"
[[model]]
id = "new"
vendor = "google"
family = "gemini"
short = "n"
location = "global"
operations = ["text-to-image"]
status = "active"
source = "example.com/models"
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    path = tmp_path / "models.toml"
    path.write_text(TOML)
    return load_catalogue(path)


class Cloud:
    """Serves all models but those in `gone`; remembers who was asked."""

    def __init__(self, *gone: str) -> None:
        self.gone = set(gone)
        self.asked: list[str] = []

    async def ask(self, model: Model) -> str:
        self.asked.append(model.id)
        if model.id in self.gone:
            raise ModelGone(model.id)
        return f"picture by {model.id}"


async def test_the_successor_serves_and_the_discovery_lasts_an_hour(catalogue: Catalogue) -> None:
    now = 1000.0
    chain, cloud = Chain(catalogue, clock=lambda: now), Cloud("old", "middle")
    model, picture = await chain.run("old", cloud.ask)
    assert (model.id, picture, cloud.asked) == ("new", "picture by new", ["old", "middle", "new"])
    await chain.run("old", cloud.ask)
    assert cloud.asked[3:] == ["new"]
    now += 3600
    cloud.gone.clear()
    model, _ = await chain.run("old", cloud.ask)
    assert model.id == "old"


async def test_the_end_of_the_chain_is_a_failure_that_is_asked_again(catalogue: Catalogue) -> None:
    chain, cloud = Chain(catalogue), Cloud("new")
    for _ in range(2):
        with pytest.raises(UpstreamFailed):
            await chain.run("new", cloud.ask)
    assert cloud.asked == ["new", "new"]


async def test_refuse_names_the_successor_every_time(catalogue: Catalogue) -> None:
    chain, cloud = Chain(catalogue, follow=False), Cloud("old")
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="old is retired, use middle"):
            await chain.run("old", cloud.ask)
    assert cloud.asked == ["old"]


async def test_another_failure_ends_the_walk(catalogue: Catalogue) -> None:
    asked = []

    async def late(model: Model) -> str:
        asked.append(model.id)
        raise UpstreamTimeout

    with pytest.raises(UpstreamTimeout):
        await Chain(catalogue).run("old", late)
    assert asked == ["old"]
