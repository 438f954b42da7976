"""The `/docs` page in a browser that can reach only the gateway: its examples work without changes."""

import json
import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, Response, Route, expect, sync_playwright

from app.api.error_codes import ERROR_CODES
from app.api.examples import GREY_PNG
from tests.conftest import LiveGateway

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the cut cable
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def docs(browser: Browser, live_gateway: LiveGateway) -> Iterator[Page]:
    """The page, opened. Fails at the end if it asked anyone else, or wrote an error to the console."""
    elsewhere: list[str] = []
    complaints: list[str] = []

    def only_ours(route: Route) -> None:
        url = route.request.url
        if url.startswith((live_gateway.url, "data:")):
            route.continue_()
        else:
            elsewhere.append(url)
            route.abort()

    with browser.new_context() as context:
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.route("**/*", only_ours)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(error.message))
        page.goto(f"{live_gateway.url}/docs")
        yield page
    # Chromium calls every 401 an error; a refused script or style is what must not be among them.
    assert (elsewhere, [said for said in complaints if "401 (Unauthorized)" not in said]) == ([], [])


def log_in(page: Page, gateway: LiveGateway) -> None:
    page.locator(".scheme-container .authorize").click()
    page.locator("#oauth_username").fill(gateway.username)
    page.locator("#oauth_password").fill(gateway.password)
    dialog = page.locator(".auth-container", has=page.locator("#oauth_username"))
    dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()


def paste_token(page: Page, token: str) -> None:
    page.locator(".scheme-container .authorize").click()
    page.get_by_label("auth-bearer-value").fill(token)
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").first.click()


class Operation(NamedTuple):
    method: str
    path: str
    described: dict[str, Any]

    def block(self, page: Page) -> Locator:
        path = page.locator(f'[data-path="{self.path}"]')
        return page.locator(f".opblock-{self.method}", has=path)

    def open(self, page: Page) -> Locator:
        block = self.block(page)
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        return block

    def variants(self) -> Iterator[tuple[str | None, str | None]]:
        """Yields each content type of the request with each of its named examples."""
        content = self.described.get("requestBody", {}).get("content", {})
        for media, body in content.items():
            for example in body.get("examples", [None]):
                yield media, example
        if not content:
            yield None, None

    def example(self, media: str, name: str | None) -> Any:
        """Returns the body that the document shows."""
        body = self.described["requestBody"]["content"][media]
        return body["examples"][name]["value"] if name else body["example"]

    def execute(self, page: Page) -> Response:
        """Press Execute, and wait until the page shows the answer's status."""
        block = self.block(page)
        with page.expect_response(lambda response: response.request.method == self.method.upper()) as caught:
            block.get_by_role("button", name="Execute").click()
        shown = block.locator(".live-responses-table .response .response-col_status")
        expect(shown).to_contain_text(str(caught.value.status))
        return caught.value


def operations(gateway: LiveGateway) -> list[Operation]:
    paths = httpx.get(f"{gateway.url}/openapi.json").json()["paths"]
    return [
        Operation(method, path, described)
        for path, methods in paths.items()
        for method, described in methods.items()
    ]


def choose_files(block: Locator) -> None:
    """A picture for every file that the form requires."""
    picture: FilePayload = {"name": "picture.png", "mimeType": "image/png", "buffer": b64decode(GREY_PNG)}
    for chooser in block.locator("tr:has(.parameter__name.required) input[type=file]").all():
        chooser.set_input_files(picture)


def test_every_example_and_every_form_works_as_it_stands(docs: Page, live_gateway: LiveGateway) -> None:
    """Every example is executed as the page shows it. Forms get the files that they require, and the route
    of a receipt gets the id of one."""
    paste_token(docs, live_gateway.token)
    statuses: dict[str, int] = {}
    receipt = ""
    for operation in operations(live_gateway):
        block = operation.open(docs)
        if "{id}" in operation.path:
            block.get_by_placeholder("id", exact=True).fill(receipt)
        for media, example in operation.variants():
            if media:
                block.get_by_label("Request content type").select_option(media)
            if example:
                block.locator(".opblock-section-request-body .examples-select select").select_option(example)
            choose_files(block)
            name = " ".join(filter(None, (operation.method, operation.path, media, example)))
            answer = operation.execute(docs)
            statuses[name] = answer.status
            receipt = answer.headers.get("x-receipt-id", receipt)
            if media == "application/json":
                assert answer.request.post_data_json == operation.example(media, example), name
        block.locator(".opblock-summary-control").click()
    assert len(statuses) > 25
    assert statuses == dict.fromkeys(statuses, 200)


def test_a_form_that_was_reset_works_as_it_stands(docs: Page, live_gateway: LiveGateway) -> None:
    paste_token(docs, live_gateway.token)
    (edit,) = (one for one in operations(live_gateway) if one.path.endswith("/image-edit"))
    block = edit.open(docs)
    block.get_by_label("Request content type").select_option("multipart/form-data")
    block.get_by_placeholder("sampleCount").fill("many")
    block.get_by_role("button", name="Reset").click()
    expect(block.get_by_placeholder("sampleCount")).to_have_value("1")
    choose_files(block)
    assert edit.execute(docs).status == 200


def test_what_is_empty_in_a_form_is_not_sent(docs: Page, live_gateway: LiveGateway) -> None:
    paste_token(docs, live_gateway.token)
    (upscale,) = (one for one in operations(live_gateway) if one.path.endswith("/image-upscale"))
    block = upscale.open(docs)
    block.get_by_label("Request content type").select_option("multipart/form-data")
    block.get_by_placeholder("outputOptions[compressionQuality]").fill("")
    choose_files(block)
    sent = upscale.execute(docs).request.post_data_buffer or b""
    assert set(re.findall(rb'form-data; name="(.+?)"', sent)) == {
        b"image",
        b"upscaleFactor",
        b"prompt",
        b"addWatermark",
        b"outputOptions[mimeType]",
        b"responseFormat",
    }


def test_nobody_is_asked_for_a_client_or_a_scope(docs: Page) -> None:
    docs.locator(".scheme-container .authorize").click()
    expect(docs.get_by_text("login (OAuth2, password)")).to_be_visible()
    expect(docs.locator(".dialog-ux label:visible")).to_have_text(["username:", "password:", "Value:"])
    expect(docs.locator(".dialog-ux").get_by_text("Scopes are used")).to_be_hidden()


def test_the_error_codes_can_be_looked_up(docs: Page) -> None:
    expect(docs.get_by_text("vendor_quota")).to_be_hidden()
    docs.get_by_text("The list of error codes").click()
    expect(docs.locator(".info details tbody tr")).to_have_count(len(ERROR_CODES))
    expect(docs.get_by_text("vendor_quota")).to_be_visible()


def test_a_telephone_scrolls_down_only(docs: Page, live_gateway: LiveGateway) -> None:
    """At 390 pixels the page does not become wider, and every button is visible."""
    docs.set_viewport_size({"width": 390, "height": 844})
    docs.get_by_text("The list of error codes").click()
    wide = {"top": width(docs)}
    docs.locator(".scheme-container .authorize").click()
    assert out_of_sight(docs.locator(".dialog-ux button")) == []
    docs.get_by_role("button", name="Close").first.click()
    for operation in operations(live_gateway):
        block = operation.open(docs)
        media = [*operation.described.get("requestBody", {}).get("content", {})]
        for one in media:
            block.get_by_label("Request content type").select_option(one)
            wide[f"{operation.path} {one}"] = width(docs)
        assert out_of_sight(block.locator("button:visible")) == []
        block.locator(".opblock-summary-control").click()
    assert wide == dict.fromkeys(wide, 390)


def test_schemas_and_answers_fit_a_telephone(docs: Page, live_gateway: LiveGateway) -> None:
    paste_token(docs, live_gateway.token)
    docs.set_viewport_size({"width": 390, "height": 844})
    (edit,) = (one for one in operations(live_gateway) if one.path.endswith("/image-edit"))
    block = edit.open(docs)
    body = block.locator(".opblock-section-request-body")
    assert edit.execute(docs).status == 200
    body.get_by_role("tab", name="Schema").click()
    references = body.get_by_role("listitem").filter(has_text="referenceImages")
    references.get_by_role("button", name="Expand all").first.click()
    expect(body.get_by_text("maskClasses").first).to_be_visible()
    assert width(docs) == 390


def width(page: Page) -> int:
    """Returns the width of the page, with the part that scrolls."""
    return int(page.evaluate("document.documentElement.scrollWidth"))


def out_of_sight(buttons: Locator) -> Any:
    """Returns the texts of buttons that go beyond the left or the right edge."""
    return buttons.evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().left < 0 "
        "|| one.getBoundingClientRect().right > innerWidth).map(one => one.innerText)"
    )


def test_a_picture_is_made_and_opened(docs: Page, live_gateway: LiveGateway) -> None:
    log_in(docs, live_gateway)
    expect(docs.get_by_role("button", name="Remove authorization").first).to_be_visible()
    docs.locator(".btn-done").first.click()

    route = docs.locator(".opblock", has=docs.locator('[data-path="/api/v1/image/text-to-image"]'))
    route.locator(".opblock-summary-control").click()
    route.get_by_role("button", name="Try it out").click()
    route.get_by_role("button", name="Execute").click()
    answer = route.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_have_text("200", timeout=20_000)
    body = json.loads(answer.locator("pre").first.inner_text())

    shown = docs.goto(body["images"][0]["url"])
    assert shown is not None
    assert (shown.status, shown.headers["content-type"]) == (200, "image/png")
    assert docs.evaluate("document.images[0].naturalWidth") >= 512


def test_a_wrong_password_is_told(docs: Page, live_gateway: LiveGateway) -> None:
    log_in(docs, live_gateway._replace(password="not the password"))
    expect(docs.locator(".auth-container .errors")).to_contain_text("Unauthorized")
