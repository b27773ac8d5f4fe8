"""The page and what it asks: a file's bytes in, an answer as JSON out. Nothing is written to disk or logged."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from anyio import CapacityLimiter, to_thread
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Answer = Callable[[str, bytes], dict[str, Any]]
HEADERS = {
    # the page may load nothing but its own two files, and talk to nobody else
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data: 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
LONGEST_NUMBER = 18  # digits of a length
LONGEST_NAME = 255  # of a file, as file systems have it


class TooLarge(Exception):
    """More was sent than a file may have."""


def application(answer: Answer, page: dict[str, Any], *, most_bytes: int, hosts: Sequence[str]) -> Starlette:
    """Serves the page, filled in with `page`, and POST /predict?name=<file name>, whose body is the file.

    Files over `most_bytes` get status 413 before they are in memory as a whole. Requests to names other than `hosts`
    are refused, and so are those that another site's page sends, so that no page elsewhere reads from this one.
    One file is looked at at a time.
    """
    loader = PackageLoader("xray_lightning", "web")
    html = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("page.html.j2")
    one_at_a_time = CapacityLimiter(1)

    async def index(request: Request) -> Response:
        return HTMLResponse(html.render(page))

    async def predict(request: Request) -> Response:
        name = request.query_params.get("name", "file")[:LONGEST_NAME]
        if not _from_own_page(request):
            return _refusal(403, name, "was sent by another page, which is not allowed")
        try:
            content = await _body(request, most_bytes)
        except TooLarge:
            return _refusal(413, name, f"is larger than {most_bytes / 1e6:g} MB")
        told = await to_thread.run_sync(partial(answer, name, content), limiter=one_at_a_time)
        return JSONResponse(told, status_code=422 if told["error"] else 200)

    def static(name: str, kind: str) -> Route:
        content = (files("xray_lightning") / "web" / name).read_bytes()

        async def send(request: Request) -> Response:
            return Response(content, media_type=kind)

        return Route(f"/{name}", send)

    routes = [
        Route("/", index),
        Route("/predict", predict, methods=["POST"]),
        static("page.css", "text/css"),
        static("page.js", "text/javascript"),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Headed), Middleware(TrustedHostMiddleware, [*hosts], www_redirect=False)],
    )


def _from_own_page(request: Request) -> bool:
    """Whether no browser says that a page of another origin sends this."""
    origin = request.headers.get("origin")
    return origin is None or origin == f"{request.url.scheme}://{request.headers.get('host')}"


async def _body(request: Request, most: int) -> bytes:
    """All of what is sent. Raises TooLarge as soon as it is more than `most` bytes, by its own word or by count."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > LONGEST_NUMBER or int(declared) > most:
        raise TooLarge
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise TooLarge
    return bytes(content)


def _refusal(status: int, name: str, error: str) -> Response:
    return JSONResponse({"name": name, "error": error}, status_code=status)


class Headed:
    """Adds HEADERS to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await self.app(scope, receive, send_headed)
