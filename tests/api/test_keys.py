"""API keys at a whole gateway, on both databases: a key pays for what it may use, and 403 for the rest."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from app.db import open_database
from app.emulator.server import Emulator
from app.services.keys import Keys
from app.services.users import Users
from tests.api.conftest import Start

TEXT_TO_IMAGE = "/api/v1/image/text-to-image"


async def add(url: str, **keys: Sequence[str] | None) -> list[str]:
    """Add the user ann and keys of hers with these operations. Returns the keys."""
    engine = open_database(url)
    await Users(engine).add("ann", "hash")
    secrets = [await Keys(engine).add(name, "ann", operations=one) for name, one in keys.items()]
    await engine.dispose()
    return secrets


def test_scopes(
    start: Start, emulator: Emulator, migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    every, some = asyncio.run(add(migrated_url, every=None, some=["text-to-image", "img2img"]))
    nest = {"statusCode": 403, "message": "This key may not use image-upscale", "error": "Forbidden"}
    gen = {"status": "error", "error": "Forbidden", "details": "This key may not use text2img"}
    picture = {"prompt": "a lighthouse", "responseFormat": "b64_json"}
    drawing = {"mode": "text2img", "prompt": "a lighthouse"}
    with (
        start(database_url=migrated_url, log_format="json") as url,
        httpx.Client(base_url=url, timeout=30) as http,
    ):

        def post(key: str, path: str, body: Any) -> httpx.Response:
            return http.post(path, json=body, headers={"Authorization": f"Bearer {key}"})

        for key in (every, some):
            assert post(key, TEXT_TO_IMAGE, picture).status_code == 200
        assert post(every, "/gen", drawing).status_code == 200
        emulator.calls.clear()
        refused = [
            (post(some, "/api/v1/image/image-upscale", {}), nest),
            (post(some, "/gen", drawing), gen),
            (post(some, "/pro/gen", drawing), gen),
        ]
        for answer, body in refused:
            assert (answer.status_code, answer.json()) == (403, body)
            assert answer.headers["X-Error-Code"] == "forbidden"
        assert not emulator.calls.list()
        assert http.get(f"/{some}?key={some}").status_code == 404
    log = capsys.readouterr().out
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["key"] for line in lines if line.get("status") == 403] == ["some"] * 3
    assert [line["path"] for line in lines if line.get("status") == 404] == ["/igw_…"]
    assert every not in log
    assert some not in log
