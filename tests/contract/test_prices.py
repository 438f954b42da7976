"""The table of prices: what is reserved and charged, the file that is shipped, and files that are wrong."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.models import load_catalogue
from app.contract.prices import (
    FRAME_TOKENS,
    OPERATIONS,
    QUALITIES,
    SIZES,
    SOURCE_TOKENS,
    THOUGHT_TOKENS,
    Order,
    Prices,
    Quality,
    Size,
    Usage,
    load_prices,
    platform_ids,
)

CATALOGUE = load_catalogue()
SHIPPED = load_prices(CATALOGUE)
TODAY = date(2026, 11, 22)

TITAN = "amazon.titan-image-generator-v2:0"
NOVA = "amazon.nova-canvas-v1:0"
PRO = "gemini-3-pro-image"
BANANA = "gemini-nano-banana-2.1"
SONNET = "claude-sonnet-4-6"


def test_every_model_has_a_price_or_a_reason() -> None:
    assert platform_ids(CATALOGUE) == SHIPPED.models


def test_every_priced_model_has_a_price_for_each_of_its_operations_today() -> None:
    for model in CATALOGUE.model:
        for id in filter(None, (model.id, model.bedrock_id, model.vertex_id)):
            for operation in model.operations:
                cost = SHIPPED.worst_cost(Order(id, operation, TODAY))
                assert (cost is None) == (id in SHIPPED.unpriced), (id, operation)


def test_every_size_that_a_model_can_make_has_a_price() -> None:
    for model in CATALOGUE.model:
        for size in SIZES:
            if size in model.capabilities:
                assert SHIPPED.worst_cost(Order(model.id, model.operations[0], TODAY, size=size)), model.id


def image(model: str, samples: int = 1, size: Size = "1K", quality: Quality = "standard") -> Order:
    return Order(model, "text2img", TODAY, samples=samples, size=size, quality=quality)


@pytest.mark.parametrize(
    ("order", "pictures", "worst", "made"),
    [
        pytest.param(image("imagen-4.0-generate-001", 4), 4, 160_000, 160_000, id="imagen, all made"),
        pytest.param(image("imagen-4.0-generate-001", 4), 2, 160_000, 80_000, id="imagen, half blocked"),
        pytest.param(image("imagen-4.0-generate-001", 4), 0, 160_000, 0, id="imagen, all blocked"),
        pytest.param(image("imagen-4.0-ultra-generate-001", size="2K"), 1, 60_000, 60_000, id="any size"),
        pytest.param(image("imagen-4.0-upscale-preview"), 1, 60_000, 60_000, id="upscale"),
        pytest.param(image("stability.stable-diffusion-xl-v1"), 1, 40_000, 40_000, id="sdxl"),
        pytest.param(image(TITAN, size="512"), 1, 8_000, 8_000, id="titan, small"),
        pytest.param(
            image(TITAN, size="512", quality="premium"), 1, 10_000, 10_000, id="titan, small, premium"
        ),
        pytest.param(image(TITAN), 1, 10_000, 10_000, id="titan"),
        pytest.param(image(TITAN, quality="premium"), 1, 12_000, 12_000, id="titan, premium"),
        pytest.param(image(TITAN), 0, 10_000, 0, id="titan, blocked"),
        pytest.param(image(TITAN, size="4K"), 1, None, None, id="titan has no 4K"),
        pytest.param(image(NOVA), 1, 40_000, 40_000, id="nova"),
        pytest.param(image(NOVA, quality="premium"), 1, 60_000, 60_000, id="nova, premium"),
        pytest.param(image(NOVA, size="2K"), 1, 60_000, 60_000, id="nova, 2K"),
        pytest.param(image(NOVA, size="2K", quality="premium"), 1, 80_000, 80_000, id="nova, 2K, premium"),
        pytest.param(image("dall-e-3"), 1, None, None, id="unknown model"),
    ],
)
def test_price_of_a_picture(order: Order, pictures: int, worst: int | None, made: int | None) -> None:
    assert SHIPPED.worst_cost(order) == worst
    assert SHIPPED.cost(order, pictures) == made


@pytest.mark.parametrize(
    ("model", "size", "picture"),
    [
        ("gemini-2.5-flash-image", "1K", 38_700),
        ("gemini-3-pro-image-preview", "2K", 134_400),
        (PRO, "1K", 134_400),
        (PRO, "2K", 134_400),
        (PRO, "4K", 240_000),
        ("gemini-3.1-flash-image", "512", 44_820),
        ("gemini-3.1-flash-image", "1K", 67_200),
        ("gemini-3.1-flash-image", "2K", 100_800),
        ("gemini-3.1-flash-image", "4K", 151_200),
        ("gemini-3.1-flash-lite-image", "1K", 33_600),
        (BANANA, "1K", 33_600),
        (BANANA, "2K", 50_400),
        (BANANA, "4K", 113_400),
    ],
)
def test_price_of_a_gemini_picture_alone(model: str, size: Size, picture: int) -> None:
    order = Order(model, "text-to-image", TODAY, size=size)
    (entry,) = [price for price in SHIPPED.price if model in price.models]
    assert SHIPPED.cost(order, 1, Usage(0, 0, entry.image_tokens[size])) == picture


EDIT = Order(PRO, "image-edit", TODAY, text_bytes=900, sources=2)
REWRITE = Order(SONNET, "rewrite", TODAY, text_bytes=1400, max_output_tokens=512)


def test_what_is_reserved_for_tokens() -> None:
    # (900 + 100 + 2 x 1290) x 2 + 2000 x 12 + 1120 x 120
    assert SHIPPED.worst_cost(EDIT) == 7_160 + 24_000 + 134_400
    # (1400 + 100) x 3 + 512 x 15
    assert SHIPPED.worst_cost(REWRITE) == 4_500 + 7_680


@pytest.mark.parametrize(
    ("order", "pictures", "usage", "cost"),
    [
        pytest.param(EDIT, 1, Usage(2_450, 800, 1120), 4_900 + 9_600 + 134_400, id="reported"),
        pytest.param(EDIT, 1, Usage(2_450, 1_920), 4_900 + 9_600 + 134_400, id="reported in one number"),
        pytest.param(EDIT, 1, Usage(2_450, 1_000), 4_900 + 120_000, id="fewer than documented"),
        pytest.param(EDIT, 0, Usage(2_450), 4_900, id="blocked: the input"),
        pytest.param(EDIT, 0, Usage(2_450, 50), 4_900 + 600, id="words instead of a picture"),
        pytest.param(EDIT, 1, None, 7_160 + 24_000 + 134_400, id="not reported"),
        pytest.param(EDIT, 0, None, 7_160, id="blocked and not reported"),
        pytest.param(REWRITE, 0, Usage(410, 120), 1_230 + 1_800, id="rewrite"),
        pytest.param(REWRITE, 0, None, 4_500 + 7_680, id="rewrite, not reported"),
        pytest.param(
            Order("us.anthropic.claude-haiku-4-5-20251001-v1:0", "rewrite", TODAY),
            0,
            Usage(1, 1),
            7,
            id="6.6 is rounded up",
        ),
    ],
)
def test_price_of_tokens(order: Order, pictures: int, usage: Usage | None, cost: int) -> None:
    assert SHIPPED.cost(order, pictures, usage) == cost


counts = st.integers(0, 20_000)
orders = st.builds(
    Order,
    model=st.sampled_from(sorted(SHIPPED.models)),
    operation=st.sampled_from(OPERATIONS),
    day=st.just(TODAY),
    samples=st.integers(1, 10),
    size=st.sampled_from(SIZES),
    quality=st.sampled_from(QUALITIES),
    text_bytes=counts,
    sources=st.integers(0, 14),
    max_output_tokens=st.integers(1, 4096),
)


@given(orders, st.data())
def test_what_was_made_never_costs_more_than_was_reserved(order: Order, data: st.DataObject) -> None:
    pictures = data.draw(st.integers(0, order.samples))
    entries = [price for price in SHIPPED.price if order.model in price.models]
    documented = entries[0].image_tokens.get(order.size, 0)
    input = data.draw(
        st.integers(0, order.samples * (order.text_bytes + FRAME_TOKENS + order.sources * SOURCE_TOKENS))
    )
    images = pictures * documented
    spoken = data.draw(st.integers(0, pictures * THOUGHT_TOKENS if documented else order.max_output_tokens))
    usages = [None, Usage(input, spoken, images), Usage(input, spoken + images)]
    worst = SHIPPED.worst_cost(order)
    for usage in usages:
        cost = SHIPPED.cost(order, pictures, usage)
        assert (cost is None) == (worst is None)
        if cost is not None and worst is not None:
            assert 0 <= cost <= worst


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────

WHEN = 'valid_from = 2026-01-01\nsource = "here"\nchecked = 2026-01-02\n'


def entry(models: str = PRO, fields: str = "image = 40_000", when: str = WHEN) -> str:
    return f'[[price]]\nmodels = ["{models}"]\n{fields}\n{when}\n'


def read(folder: Path, text: str) -> Prices:
    path = folder / "prices.toml"
    path.write_text(text, "utf-8")
    return load_prices(CATALOGUE, path)


def test_an_announced_price_begins_on_its_day(tmp_path: Path) -> None:
    later = entry(fields="image = 50_000", when=WHEN.replace("2026-01-01", "2027-01-01"))
    prices = read(tmp_path, later + entry())
    by_day = {
        day: prices.worst_cost(Order(PRO, "image-edit", day))
        for day in (date(2025, 12, 31), date(2026, 1, 1), date(2026, 12, 31), date(2027, 1, 1))
    }
    assert list(by_day.values()) == [None, 40_000, 40_000, 50_000]


def test_a_price_may_differ_by_operation(tmp_path: Path) -> None:
    edit = entry(fields='operations = ["image-edit"]\nimage = 1')
    prices = read(
        tmp_path, edit + entry(fields='operations = ["text-to-image", "image-customize"]\nimage = 2')
    )
    costs = [prices.cost(Order(PRO, operation, TODAY), 1) for operation in OPERATIONS]
    assert dict(zip(OPERATIONS, costs, strict=True)) == dict.fromkeys(OPERATIONS) | {
        "image-edit": 1,
        "text-to-image": 2,
        "image-customize": 2,
    }


def test_a_file_may_lack_models_and_say_why(tmp_path: Path) -> None:
    prices = read(tmp_path, f'[unpriced]\n"{PRO}" = "by contract"\n')
    assert prices.models == {PRO}
    assert prices.worst_cost(Order(PRO, "image-edit", TODAY)) is None
    assert prices.cost(Order(PRO, "image-edit", TODAY), 1, Usage(5, 5, 5)) is None
    assert read(tmp_path, "").models == frozenset()


TOKENS = "input_mtok = 1\noutput_mtok = 1\noutput_image_mtok = 1\nimage_tokens = { 1K = 5 }"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(entry("gemini-3-por-image"), "unknown models: gemini-3-por-image", id="misspelt model"),
        pytest.param(
            '[unpriced]\n"gpt-image-1" = "x"', "unknown models: gpt-image-1", id="unpriced stranger"
        ),
        pytest.param(entry(fields="image = 0.04"), f"price of .*{PRO}.*: image: .*valid integer", id="float"),
        pytest.param(
            entry(fields="image = -1"), f"price of .*{PRO}.*: image: .*or equal to 0", id="negative"
        ),
        pytest.param(entry(fields='image = "40000"'), "image: .*valid integer", id="text"),
        pytest.param(entry(fields="image = true"), "image: .*valid integer", id="boolean"),
        pytest.param(entry(fields=""), f"price of .*{PRO}.*: needs either image, or input", id="no price"),
        pytest.param(entry(fields="image = 1\ninput_mtok = 1"), "needs either image", id="two units"),
        pytest.param(entry(fields="input_mtok = 1"), "needs either image", id="input alone"),
        pytest.param(
            entry(fields="output_image_mtok = 1"), "needs either image", id="pictures' tokens alone"
        ),
        pytest.param(entry(fields=TOKENS.replace("image_tokens", "#")), "go together", id="no tokens"),
        pytest.param(entry(fields=TOKENS.replace("output_image_mtok", "#")), "go together", id="no rate"),
        pytest.param(entry(fields=TOKENS.replace("1K", "8K")), "image_tokens: 8K", id="tokens of no size"),
        pytest.param(
            entry(fields=TOKENS.replace("5", "0")), "image_tokens: 1K: .*greater than 0", id="0 tokens"
        ),
        pytest.param(
            entry(fields="image = 1\noutput_image_mtok = 1\nimage_tokens = { 1K = 5 }"),
            "one for its tokens",
            id="pictures priced twice",
        ),
        pytest.param(entry(fields='sizes = ["1K"]\n' + TOKENS), "sizes in tokens", id="sizes of tokens"),
        pytest.param(entry(fields='image = 1\nsizes = ["3K"]'), "sizes: 0: ", id="no such size"),
        pytest.param(entry(fields='image = 1\nqualities = ["hd"]'), "qualities: 0: ", id="no such quality"),
        pytest.param(entry(fields='image = 1\noperations = ["paint"]'), "operations: 0: ", id="no operation"),
        pytest.param(entry(fields="image = 1\nimages = 2"), f"{PRO}.*: images: Extra", id="unknown field"),
        pytest.param(entry(when='source = "here"'), "valid_from: Field required", id="no day"),
        pytest.param(entry().replace(f'"{PRO}"', ""), r"price 0: models: .*at least 1", id="no model"),
        pytest.param("price = [1]", "price 0: ", id="no entry"),
        pytest.param("price = 1", "price: ", id="no list"),
        pytest.param("prices = []", "prices: Extra", id="unknown table"),
        pytest.param("[[price]", "Expected", id="no TOML"),
        pytest.param(entry() * 2, f"{PRO}, .* has two prices from 2026-01-01", id="twice"),
        pytest.param(
            entry() + entry(fields='image = 1\nsizes = ["4K"]\nqualities = ["premium"]'),
            f"{PRO}, text-to-image, 4K, premium has two prices",
            id="a tier that another entry covers",
        ),
        pytest.param(
            entry() + entry(fields='image = 1\noperations = ["rewrite"]'),
            f"{PRO}, rewrite, 512, standard has two prices",
            id="an operation that another entry covers",
        ),
        pytest.param(
            entry() + f'[unpriced]\n"{PRO}" = "x"', "has a price, and is listed as unpriced", id="both"
        ),
    ],
)
def test_a_file_that_breaks_a_rule_says_which_entry(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(tmp_path, text)


def test_the_shipped_file_serves_any_catalogue() -> None:
    few = CATALOGUE.model_copy(update={"model": CATALOGUE.model[:1]})
    assert load_prices(few).models > platform_ids(few)
