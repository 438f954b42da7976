"""The `/docs` page: Swagger UI, served by the gateway without files from elsewhere."""

from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import FileResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from app.api import error_codes
from app.api.auth import login_body
from app.api.caller import LOGIN
from app.api.exchange import Gateway
from app.api.openapi.headers import HEADERS

PAGE = Path(__file__).parent / "docs_page"

# No other origins, no inline scripts, no framing (a user could be tricked into a framed Execute button).
# Swagger UI's style sheet carries its icons as data: URIs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_DESCRIPTION = f"""\
Makes and edits pictures with Google Vertex AI and Amazon Bedrock, without cloud credentials in your app.

1. Press **Authorize**: log in, or paste a token.
2. Open a route and press **Try it out**, then **Execute**. Every example works without changes; in forms,
   choose your files first.

A picture costs money, unless the gateway runs on its emulator. Every response has a header `X-Request-Id`:
give it to the operator, who can find the request in the gateway's log with it. Every error has a header
`X-Error-Code`.

<details><summary>The list of error codes</summary>

{error_codes.table()}

</details>
"""

_TAGS = [
    {"name": "auth", "description": "Log in, and see the account of your token"},
    {"name": "image", "description": "Vertex AI: make, enlarge and edit pictures"},
    {"name": "gen", "description": "Amazon Bedrock: one picture from words or from another picture"},
    {"name": "costs", "description": "What your requests have cost, and what your budgets allow"},
    {"name": "models", "description": "The models, and the successors of retired ones"},
    {"name": "health", "description": "For load balancers and operators"},
]


def install(app: Gateway) -> None:
    """Serve the page, and describe the API in its document.

    Make the app with `docs_url=None, redoc_url=None`, which turns off FastAPI's own pages.
    """
    app.description = _DESCRIPTION
    app.openapi_tags = _TAGS
    fastapi_document = app.openapi

    def with_headers() -> dict[str, Any]:
        """Returns FastAPI's OpenAPI document with headers and a second way to authorize."""
        document = fastapi_document()
        document["components"]["headers"] = HEADERS
        schemes = document["components"]["securitySchemes"]
        login_scheme = {"login": jsonable_encoder(LOGIN, exclude_none=True)}
        document["components"]["securitySchemes"] = login_scheme | schemes
        for operation in (one for path in document["paths"].values() for one in path.values()):
            if operation.get("security"):
                operation["security"] = [{"login": []}, {"token": []}]
        if app.parts and (login := app.parts.open_login):  # parts is None before the start
            document["paths"]["/api/v1/auth/login"]["post"]["requestBody"] = login_body(login)
        return document

    app.openapi = with_headers  # type: ignore[method-assign] # as FastAPI's documentation does

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": _POLICY})

    app.mount("/docs/assets", StaticFiles(directory=PAGE))

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def root(request: Request) -> RedirectResponse:
        """Redirect browsers to /docs. A client that does not accept HTML gets Nest's 404, as recorded."""
        accepted = request.headers.get("accept", "")
        if "text/html" not in accepted and "*/*" not in accepted:
            raise HTTPException(404)
        return RedirectResponse("/docs")
