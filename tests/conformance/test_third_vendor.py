"""A third vendor takes its own file (acme.py), a row in the catalogue and a line of wiring: nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.contract.gen import read_gen
from app.emulator.server import Emulator
from app.parts import build
from app.pictures.checks import check
from app.plan import plan
from app.providers import vendors
from app.settings import EMULATED_ADDRESSES, Settings
from tests.conformance.acme import Acme
from tests.conformance.acme_cloud import MODEL, acme_cloud
from tests.support.provider_call import call
from tests.support.server_process import ROOT

pytestmark = pytest.mark.anyio

SHIPPED = (ROOT / "app/models.toml").read_text("utf-8")
DRAWER = 'text2img = "stability.stable-diffusion-xl-v1"'


@pytest.fixture
def settings(tmp_path: Path, database_url: str, emulator: Emulator) -> Callable[[str], Settings]:
    """Returns settings with these models, in front of the shared emulator."""
    endpoints: dict[str, Any] = dict.fromkeys(EMULATED_ADDRESSES, emulator.http_url)

    def made(models: str) -> Settings:
        file = tmp_path / "models.toml"
        file.write_text(models, "utf-8")
        return Settings(
            models_file=file,
            data_dir=tmp_path,
            spool_dir=tmp_path / "spool",
            database_url=database_url,
            redis_url=None,
            **endpoints,
        )

    return made


async def test_a_third_vendor_draws(
    monkeypatch: pytest.MonkeyPatch, settings: Callable[[str], Settings], emulator: Emulator
) -> None:
    async with acme_cloud() as cloud:
        url = cloud.url("").rstrip("/")
        wired = vendors.Vendor(
            "acme", Acme.families, lambda given: Acme(given.transport, given.admission, url)
        )
        monkeypatch.setitem(vendors.GEN_VENDORS, "acme", wired)
        chosen = settings(SHIPPED.replace(DRAWER, 'text2img = "acme-1"') + MODEL)

        async with build(plan(chosen)) as built:
            with built.work.blobs() as blobs:
                request = read_gen({"mode": "text2img", "prompt": "a cat"}, blobs, text=False)
                made = await built.gen.make(request, call(blobs))
                (picture,) = made.pictures
                check(picture)
            health = await built.readiness.ask()

    assert (made.model.id, made.requested, len(cloud.requests)) == ("acme-1", "acme-1", 1)
    assert health.parts["acme"].status == "ok"
    assert not emulator.calls.paid


def test_a_vendor_that_is_not_wired_is_found_at_start(settings: Callable[[str], Settings]) -> None:
    with pytest.raises(SystemExit, match="MODELS_FILE: acme-1: acme has no family acme that can do text2img"):
        plan(settings(SHIPPED + MODEL))


def test_a_default_that_is_missing_is_found_at_start(settings: Callable[[str], Settings]) -> None:
    with pytest.raises(SystemExit, match="MODELS_FILE: defaults are missing: text2img"):
        plan(settings(SHIPPED.replace(DRAWER, "")))
