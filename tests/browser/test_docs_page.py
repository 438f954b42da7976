"""The `/docs` page in a browser that reaches nothing but the gateway: log in, make a picture, open it."""

import json
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

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
