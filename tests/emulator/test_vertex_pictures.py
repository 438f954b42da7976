"""The emulated pictures differ as the requests differ: size, mask, seed, inputs, words."""

from collections.abc import Callable
from io import BytesIO
from itertools import combinations
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from app.emulator.server import Emulator
from tests.support.vertex_client import ASK, Json, Reply, ask_rest, image, opened, picture

FREE = {"seed": 7, "addWatermark": False}


def drawn(emulator: Emulator, model: str, instance: Json, **parameters: Any) -> list[Image.Image]:
    reply = ask_rest(emulator, f"{model}:predict", {"instances": [instance], "parameters": parameters})
    assert reply.status == 200, reply.body
    return [opened(each["bytesBase64Encoded"]) for each in reply.body["predictions"]]


def generated(emulator: Emulator, model: str, *parts: Json, **image_config: Any) -> Image.Image:
    config = {"responseModalities": ["IMAGE"], "imageConfig": image_config, "seed": 7}
    body = {"contents": [{"role": "user", "parts": list(parts)}], "generationConfig": config}
    reply = ask_rest(emulator, f"{model}:generateContent", body)
    assert reply.status == 200, reply.body
    return opened(reply.body["candidates"][0]["content"]["parts"][-1]["inlineData"]["data"])


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        ("1:1", (1024, 1024)),
        ("3:4", (896, 1280)),
        ("4:3", (1280, 896)),
        ("9:16", (768, 1408)),
        ("16:9", (1408, 768)),
    ],
)
@pytest.mark.parametrize(("named", "scale"), [("1K", 1), ("2K", 2)])
def test_imagen_has_the_size_of_its_ratio(
    ratio: str, size: tuple[int, int], named: str, scale: int, emulator: Emulator
) -> None:
    parameters = {"aspectRatio": ratio, "sampleImageSize": named, "sampleCount": 1}
    [made] = drawn(emulator, "imagen-4.0-ultra-generate-001", {"prompt": "a pear"}, **parameters)
    assert made.size == (size[0] * scale, size[1] * scale)


@pytest.mark.parametrize(
    ("model", "config", "size"),
    [
        ("gemini-2.5-flash-image", {}, (1024, 1024)),
        ("gemini-2.5-flash-image", {"aspectRatio": "21:9"}, (1536, 672)),
        ("gemini-3-pro-image", {"aspectRatio": "4:5", "imageSize": "2K"}, (1792, 2304)),
        ("gemini-3-pro-image", {"aspectRatio": "1:1", "imageSize": "4K"}, (4096, 4096)),
        ("gemini-nano-banana-2.1", {"aspectRatio": "8:1"}, (3072, 384)),
        ("gemini-3.1-flash-image", {"aspectRatio": "3:2", "imageSize": "512"}, (624, 416)),
    ],
)
def test_gemini_has_the_size_of_its_ratio(
    model: str, config: Json, size: tuple[int, int], emulator: Emulator
) -> None:
    assert generated(emulator, model, {"text": "a pear"}, **config).size == size


def test_jpeg_quality_is_honoured(emulator: Emulator) -> None:
    def quantized(quality: int) -> Any:
        options = {"mimeType": "image/jpeg", "compressionQuality": quality}
        asked = {"outputOptions": options, "sampleCount": 1}
        [made] = drawn(emulator, "imagen-4.0-generate-001", {"prompt": "a pear"}, **asked)
        assert made.get_format_mimetype() == "image/jpeg"  # type: ignore[attr-defined]
        return made.quantization  # type: ignore[attr-defined]

    for quality in (20, 95):
        reference = Image.open(BytesIO(_saved(quality)))
        assert quantized(quality) == reference.quantization  # type: ignore[attr-defined]


def _saved(quality: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.mark.parametrize("ask", ASK)
def test_same_prompt_and_seed_give_the_same_pictures(ask: Callable[..., Reply], emulator: Emulator) -> None:
    body = {"instances": [{"prompt": "a pear"}], "parameters": {**FREE, "sampleCount": 4}}
    first, second = (ask(emulator, "imagen-4.0-generate-001:predict", body).body for _ in range(2))
    assert first == second
    assert len({each["bytesBase64Encoded"] for each in first["predictions"]}) == 4


@pytest.mark.parametrize(
    ("model", "body"),
    [
        pytest.param(
            "imagen-4.0-generate-001:predict",
            {"instances": [{"prompt": "a pear"}], "parameters": {"sampleCount": 1}},
            id="imagen",
        ),
        pytest.param(
            "gemini-2.5-flash-image:generateContent",
            {"contents": [{"parts": [{"text": "a pear"}]}]},
            id="gemini",
        ),
    ],
)
def test_without_a_seed_every_call_has_its_own_picture(model: str, body: Json, emulator: Emulator) -> None:
    first, second = (ask_rest(emulator, model, body).body for _ in range(2))
    assert first != second


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_upscale_enlarges_the_input(factor: int, emulator: Emulator) -> None:
    source = halves((40, 30), "red", "blue")
    config = {"upscaleConfig": {"upscaleFactor": f"x{factor}"}}
    [made] = drawn(emulator, "imagen-4.0-upscale-preview", {"image": image(source)}, **config)
    assert made.size == (40 * factor, 30 * factor)
    assert (made.getpixel((0, 0)), made.getpixel((40 * factor - 1, 0))) == ((255, 0, 0), (0, 0, 255))


def halves(size: tuple[int, int], left: str, right: str) -> bytes:
    canvas = Image.new("RGB", size, right)
    canvas.paste(Image.new("RGB", (size[0] // 2, size[1]), left), (0, 0))
    out = BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()


def references(raw: bytes, mode: str, mask: bytes | None, dilation: float) -> Json:
    masking: Json = {
        "referenceType": "REFERENCE_TYPE_MASK",
        "referenceId": 2,
        "maskImageConfig": {"maskMode": f"MASK_MODE_{mode}", "dilation": dilation},
    }
    if mask is not None:
        masking["referenceImage"] = image(mask)
    base = {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": 1, "referenceImage": image(raw)}
    return {"prompt": "a red car", "referenceImages": [base, masking]}


@pytest.mark.parametrize(
    ("edit_mode", "dilation", "reaches"),
    [
        pytest.param("INPAINT_INSERTION", 0, 100, id="insertion"),
        pytest.param("INPAINT_REMOVAL", 0.05, 110, id="removal, dilated by a twentieth of the longer side"),
        pytest.param("OUTPAINT", 0.03, 106, id="outpaint"),
        pytest.param("BGSWAP", 0, 100, id="background swap"),
    ],
)
def test_edit_repaints_under_the_dilated_mask_and_nowhere_else(
    edit_mode: str, dilation: float, reaches: int, emulator: Emulator
) -> None:
    raw = picture((200, 120), "teal")
    instance = references(raw, "USER_PROVIDED", halves((200, 120), "white", "black"), dilation)
    made = drawn(
        emulator,
        "imagen-3.0-capability-001",
        instance,
        editMode=f"EDIT_MODE_{edit_mode}",
        sampleCount=2,
        **FREE,
    )
    for each in made:
        assert ImageChops.difference(each, opened(raw)).getbbox() == (0, 0, reaches, 120)
    assert made[0].tobytes() != made[1].tobytes()


@pytest.mark.parametrize(("mode", "kept"), [("BACKGROUND", (100, 60)), ("FOREGROUND", (2, 2))])
def test_computed_mask_keeps_the_other_part(mode: str, kept: tuple[int, int], emulator: Emulator) -> None:
    """A background swap keeps the subject. For the emulator every subject is in the middle."""
    instance = references(picture((200, 120), "teal"), mode, None, 0)
    asked: Json = {"editMode": "EDIT_MODE_BGSWAP", "sampleCount": 1, **FREE}
    [made] = drawn(emulator, "imagen-3.0-capability-001", instance, **asked)
    changed = ImageChops.difference(made, Image.new("RGB", made.size, "teal"))
    middle_and_corner = {(100, 60), (2, 2)}
    assert changed.getpixel(kept) == (0, 0, 0)
    assert changed.getpixel((middle_and_corner - {kept}).pop()) != (0, 0, 0)


def test_each_semantic_class_has_its_own_place(emulator: Emulator) -> None:
    def changed(*classes: int) -> Any:
        instance = references(picture((200, 120), "teal"), "SEMANTIC", None, 0)
        instance["referenceImages"][1]["maskImageConfig"]["maskClasses"] = classes
        asked: Json = {"editMode": "EDIT_MODE_BGSWAP", "sampleCount": 1, **FREE}
        [made] = drawn(emulator, "imagen-3.0-capability-001", instance, **asked)
        return ImageChops.difference(made, Image.new("RGB", made.size, "teal")).getbbox()

    assert changed(0) == (0, 0, 51, 31)
    assert changed(5) == (50, 30, 101, 61)
    assert changed(0, 5) == (0, 0, 101, 61)


GATEWAY_ASKS = "Edit the original where the mask is white. {} Leave everything else as it is."
CALLED = {"original": "The original:", "mask": "The mask:"}


def told(task: str, *pictures: tuple[str, bytes]) -> list[Json]:
    parts: list[Json] = []
    for name, data in pictures:
        source = {"mimeType": "image/png", "data": image(data)["bytesBase64Encoded"]}
        parts += [{"text": CALLED[name]}, {"inlineData": source}]
    return [*parts, {"text": GATEWAY_ASKS.format(task)}]


TASKS = {
    "removal": "Remove what stands in the white area and fill it with what fits around it.",
    "insertion": "Put into the white area what is asked for below.",
    "background": "The white area is the background: replace it by what is asked for below.",
    "outpaint": "Continue the picture into the white area, seamlessly.",
}


def test_gemini_does_what_its_words_ask_for(emulator: Emulator) -> None:
    """The whole picture changes, outside the mask too."""
    pictures = ("original", picture((256, 256))), ("mask", halves((256, 256), "white", "black"))
    made = {
        task: generated(emulator, "gemini-3-pro-image", *told(text, *pictures))
        for task, text in TASKS.items()
    }
    for one, other in combinations(TASKS, 2):
        left = ImageChops.difference(made[one], made[other]).crop((0, 0, 512, 1024))
        assert sum(ImageStat.Stat(left).mean) > 5, (one, other)
    for each in made.values():
        right = each.crop((600, 100, 1000, 900))
        difference = ImageChops.difference(right, Image.new("RGB", right.size, "teal"))
        assert 0 < sum(ImageStat.Stat(difference).mean) < 25


def test_gemini_finds_the_mask_by_its_name(emulator: Emulator) -> None:
    original, mask = ("original", picture((64, 64))), ("mask", halves((64, 64), "white", "black"))
    first, second = (
        generated(emulator, "gemini-3-pro-image", *told(TASKS["removal"], *order))
        for order in ((original, mask), (mask, original))
    )
    assert ImageChops.difference(first, second).getbbox() is None


def test_gemini_guesses_a_missing_mask(emulator: Emulator) -> None:
    text = "Edit the original. Replace the background, nothing else."
    source = {"mimeType": "image/png", "data": image(picture((64, 64)))["bytesBase64Encoded"]}
    made = generated(emulator, "gemini-3-pro-image", {"inlineData": source}, {"text": text})
    far = ImageChops.difference(made, Image.new("RGB", made.size, "teal")).convert("L")
    assert max(far.crop((400, 400, 600, 600)).tobytes()) < 20
    assert max(far.crop((0, 0, 200, 200)).tobytes()) > 20


def test_try_on_puts_the_product_on_the_person(emulator: Emulator) -> None:
    wearing = {
        "personImage": {"image": image(picture((300, 600), "white"))},
        "productImages": [{"image": image(picture((100, 100), "red"))}],
    }
    [made] = drawn(emulator, "virtual-try-on-001", wearing, **FREE)
    assert made.size == (300, 600)
    assert reddish(made.getpixel((150, 200)))
    assert not reddish(made.getpixel((150, 20)))


def test_recontext_stands_the_product_in_a_scene(emulator: Emulator) -> None:
    products = [{"image": image(picture((100, 100), colour))} for colour in ("red", "red")]
    instance = {"prompt": "on a beach", "productImages": products}
    [made] = drawn(emulator, "imagen-product-recontext-preview-06-30", instance, **FREE)
    assert made.size == (1024, 1024)
    assert reddish(made.getpixel((341, 700)))
    assert reddish(made.getpixel((682, 700)))


def test_gemini_repaints_the_whole_input_in_about_its_shape(emulator: Emulator) -> None:
    source = {
        "inlineData": {"mimeType": "image/png", "data": image(picture((500, 250)))["bytesBase64Encoded"]}
    }
    made = generated(emulator, "gemini-nano-banana-2.1", source, {"text": "make it winter"})
    assert made.size == (1344, 768)
    untouched = Image.new("RGB", made.size, "teal")
    assert ImageChops.difference(made, untouched).getbbox() == (0, 0, 1344, 768)


def test_gemini_gives_text_and_draft_beside_the_picture(emulator: Emulator) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "a pear"}]}]}
    reply = ask_rest(emulator, "gemini-3-pro-image:generateContent", body)
    draft, text, picture = reply.body["candidates"][0]["content"]["parts"]
    assert (draft["thought"], opened(draft["inlineData"]["data"]).size) == (True, (64, 64))
    assert text == {"text": "Here is the picture."}
    assert opened(picture["inlineData"]["data"]).size == (1024, 1024)


def test_rewritten_prompt_and_safety_attributes_are_returned_if_requested(emulator: Emulator) -> None:
    parameters = {"sampleCount": 1, "includeSafetyAttributes": True, "enhancePrompt": True}
    body = {"instances": [{"prompt": "a pear"}], "parameters": parameters}
    reply = ask_rest(emulator, "imagen-4.0-generate-001:predict", body)
    made, positive = reply.body["predictions"]
    assert made["prompt"] == "a pear, highly detailed"
    assert made["safetyAttributes"] == positive["safetyAttributes"]
    assert positive["contentType"] == "Positive Prompt"


def reddish(pixel: Any) -> bool:
    red, green, blue = pixel
    return bool(red > 200 and green < 60 and blue < 60)
