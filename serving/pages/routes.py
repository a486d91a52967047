"""The pages' routes. A page is a shell without data: nothing about a fan is in it, its path or its query."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .graphiql import VENDOR, graphiql_page, graphiql_policy

FAN_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The content security policy of the fan page and the console: files of our own, no inline script, and no text that
becomes HTML."""

_FOLDER: Final = Path(__file__).parent
_FILES: Final = ("fan.css", "fan.js", "asking.js", "building.js", "figures.js", "plot.js", "reasons.js", "icon.svg")
_CONSOLE_FILES: Final = (
    "console.css",
    "console.js",
    *(f"console/{file.name}" for file in sorted((_FOLDER / "console").glob("*.js"))),
)
_SHARED_FILES: Final = ("fan.css", "building.js", "plot.js", "icon.svg")
_DEVELOPMENT_FILES: Final = ("graphiql.css", "graphiql.js")
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def console_routes() -> list[Route]:
    """``GET /console`` and its files. None needs a token: what the page shows it asks of ``/console/api``."""
    files = (*_CONSOLE_FILES, *_SHARED_FILES)
    return [_route("/console", _FOLDER / "console.html", FAN_POLICY), *_file_routes(_FOLDER, files)]


def page_routes(development: bool) -> list[Route]:
    """``GET /fans`` and its files; in development ``GET /graphiql`` too, which else is no path at all.

    None of them needs a token: what a page shows it asks of ``/graphql`` with the token of whoever reads it.

    Args:
        development: whether GraphiQL is served.
    """
    routes = [_route("/fans", _FOLDER / "fan.html", FAN_POLICY), *_file_routes(_FOLDER, _FILES)]
    if development:
        vendored = VENDOR.complete(_FOLDER)
        page = graphiql_page((_FOLDER / "graphiql.html").read_text(encoding="utf-8"), vendored=vendored)
        routes += [
            _content_route("/graphiql", page.encode(), ".html", graphiql_policy(vendored=vendored)),
            *_file_routes(_FOLDER, _DEVELOPMENT_FILES),
            *(_file_routes(_FOLDER, VENDOR.files) if vendored else ()),
        ]
    return routes


def _file_routes(folder: Path, names: Sequence[str]) -> list[Route]:
    return [_route(f"/pages/{name}", folder / name) for name in names]


def _route(path: str, file: Path, policy: str | None = None) -> Route:
    # Read once, here: no request's path ever becomes a file's.
    return _content_route(path, file.read_bytes(), file.suffix, policy)


def _content_route(path: str, content: bytes, suffix: str, policy: str | None) -> Route:
    headers = {"content-type": _TYPES[suffix]} | ({} if policy is None else {"content-security-policy": policy})

    async def serve(request: Request) -> Response:
        del request
        return Response(content, headers=headers)

    return Route(path, serve)
