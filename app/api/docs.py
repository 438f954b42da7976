"""The `/docs` page: Swagger UI, all of it served by the gateway itself."""

from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

PAGE = Path(__file__).parent / "docs_page"

# Nothing from elsewhere, no inline script, no framing (a framed Execute button could be clicked unseen).
# Swagger UI's style sheet carries its icons as data: URIs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def install(app: FastAPI) -> None:
    """Serve the page; make the app with `docs_url=None, redoc_url=None`, so that FastAPI's own stay away."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": _POLICY})

    app.mount("/docs/assets", StaticFiles(directory=PAGE))

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def root(request: Request) -> RedirectResponse:
        """Lead people here. A client that does not say that it takes a page gets Nest's 404, as recorded."""
        accepted = request.headers.get("accept", "")
        if "text/html" not in accepted and "*/*" not in accepted:
            raise HTTPException(404)
        return RedirectResponse("/docs")
