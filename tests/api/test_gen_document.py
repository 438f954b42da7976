"""Everything that the document of /gen shows runs as written, but for address, token and placeholder."""

import base64
import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.api.examples import GEN_EXAMPLES, GREY_PNG
from app.emulator.server import Emulator
from tests.api.conftest import Client, token

Json = dict[str, Any]

DOCUMENT = (Path(__file__).parents[1] / "documents/titan-gen-api.md").read_text("utf-8")
ADDRESS = "https://autevn7nbg.execute-api.us-east-1.amazonaws.com"
PLACEHOLDER = "iVBORw0KGgoAAAANSUhEUgAA...[base64_string]"
CONFIGS = [
    config
    for block in re.findall(r"```json\n(.*?)```", DOCUMENT, re.S)
    if "mode" in (config := json.loads(block))
]
SCRIPTS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)

TEXT2IMG = {
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "9:16": (768, 1344),
    "3:2": (1216, 832),
    "3:5": (768, 1344),
}
IMG2IMG = {
    "1:1": (1024, 1024),
    "16:9": (1173, 640),
    "9:16": (768, 1408),
    "3:2": (1152, 768),
    "3:5": (768, 1280),
}


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def made(answer: Json) -> Image.Image:
    return opened(base64.b64decode(answer["image_base64"], validate=True))


def photo(size: tuple[int, int] = (1024, 1024)) -> str:
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_the_document_has_what_is_tested_here() -> None:
    assert (len(CONFIGS), len(SCRIPTS)) == (7, 3)


def test_the_api_documentation_shows_the_documents_configs() -> None:
    ours = [
        {
            name: value.replace(GREY_PNG, PLACEHOLDER) if isinstance(value, str) else value
            for name, value in one.items()
        }
        for one in GEN_EXAMPLES.values()
    ]
    assert ours == CONFIGS


@pytest.mark.parametrize("path", ["/gen", "/pro/gen"])
@pytest.mark.parametrize("config", CONFIGS, ids=[config["prompt"][:20] for config in CONFIGS])
def test_a_config_of_the_document_runs(client: Client, emulator: Emulator, path: str, config: Json) -> None:
    body = config | {"init_image": photo()} if "init_image" in config else config

    response = client.post(path, body)

    answer = response.json()
    assert response.status_code == 200
    width, height = made(answer).size
    assert (width, height) == (TEXT2IMG if config["mode"] == "text2img" else IMG2IMG)[config["aspect_ratio"]]
    assert answer == {
        "status": "success",
        "image_base64": answer["image_base64"],
        "enhanced_prompt": answer["enhanced_prompt"],
        "model_used": answer["model_used"],
        "metadata": {
            "model": answer["model_used"],
            "aspect_ratio": config["aspect_ratio"],
            "dimensions": f"{width}x{height}",
            "prompt_enhanced": config["regen_prompt"],
        },
    }
    assert (answer["enhanced_prompt"] != config["prompt"]) == config["regen_prompt"]
    assert emulator.calls.paid == 1


@pytest.mark.parametrize("config", GEN_EXAMPLES.values(), ids=GEN_EXAMPLES)
def test_an_example_of_the_api_documentation_runs_as_it_stands(client: Client, config: Json) -> None:
    assert client.post("/gen", config).status_code == 200


@pytest.mark.parametrize(("ratio", "size"), TEXT2IMG.items(), ids=TEXT2IMG)
def test_text2img_in_every_ratio(client: Client, ratio: str, size: tuple[int, int]) -> None:
    answer = client.post("/gen", {"mode": "text2img", "prompt": "a harbour", "aspect_ratio": ratio}).json()

    assert made(answer).size == size
    assert answer["metadata"]["dimensions"] == "{}x{}".format(*size)


@pytest.mark.parametrize(("ratio", "size"), IMG2IMG.items(), ids=IMG2IMG)
def test_img2img_in_every_ratio(client: Client, ratio: str, size: tuple[int, int]) -> None:
    body = {"mode": "img2img", "prompt": "a harbour", "aspect_ratio": ratio, "init_image": photo()}

    answer = client.post("/gen", body).json()

    assert made(answer).size == size
    assert answer["metadata"]["dimensions"] == "{}x{}".format(*size)


@pytest.mark.parametrize(
    ("index", "size"), [(1, (1344, 768)), (2, (1024, 1024))], ids=["text2img", "img2img"]
)
def test_a_python_example_makes_its_picture(
    gateway_url: str, emulator: Emulator, tmp_path: Path, index: int, size: tuple[int, int]
) -> None:
    script = SCRIPTS[index].replace(ADDRESS, gateway_url)
    script = script.replace('headers={"', f'headers={{"Authorization": "Bearer {token()}", "')

    said = run(script, tmp_path)

    assert "Image saved!" in said
    assert opened((tmp_path / "output.png").read_bytes()).size == size
    assert emulator.calls.paid == 1


def test_what_the_resizing_example_makes_is_a_legal_init_image(client: Client, tmp_path: Path) -> None:
    run(SCRIPTS[0], tmp_path)

    resized = base64.b64encode((tmp_path / "resized_output.png").read_bytes()).decode()
    body = {"mode": "img2img", "prompt": "a harbour", "aspect_ratio": "16:9", "init_image": resized}
    assert client.post("/gen", body).status_code == 200


def run(script: str, folder: Path) -> str:
    """Run a script of the document beside the photograph that it expects; what it printed."""
    Image.linear_gradient("L").resize((1600, 1200)).convert("RGB").save(folder / "input.jpg")
    command = [sys.executable, "-X", "utf8", "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
