"""A request over HTTP as a span: its route and status, never its path, which may hold a fan's id.

Source: OpenTelemetry semantic conventions 1.38, "HTTP server".
"""

import random
from collections.abc import Awaitable, Callable
from typing import Final

from ...io.telemetry.tracing import switch
from ..traces import chooses, request_span
from .answers import Message, Receive, Scope, Send

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_ARM_MANY: Final = "/arm"
_ROUTES: Final = frozenset(
    {_ARM_MANY, "/graphql", "/health", "/ready", "/fans", "/graphiql", "/docs", "/openapi.json", "/", "/console"}
)
_BELOW: Final = {"/arm/": "/arm/{globalUserId}", "/console/": "/console/{page}"}
_HEADER: Final = b"traceparent"
_SERVER_ERROR: Final = 500

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]


def is_recorded(scope: Scope, *, trusts: bool) -> bool:
    """Whether a request is recorded; asked once for each. Only where ``tracing.switch.on``.

    Args:
        scope: of the request.
        trusts: whether the caller's trace is continued.
    """
    if trusts:
        return chooses(_brought(scope), trusts=True)
    return random.random() < switch.sampling.ratio  # noqa: S311 - as Sampling.chooses, without its calls


async def traced(endpoint: Endpoint, scope: Scope, receive: Receive, send: Send, *, trusts: bool) -> None:
    """Answers one request that is recorded by an endpoint, in a span.

    Args:
        endpoint: an ASGI application.
        scope: of the request.
        receive: gives its body.
        send: takes the answer.
        trusts: whether the caller's trace is continued.
    """
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    route = _route_of(scope["path"])
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if route:
        attributes["http.route"] = route
    with request_span(f"{method} {route}".rstrip(), _brought(scope), attributes, trusts=trusts) as span:

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                status: int = message["status"]
                span.set({"http.response.status_code": status})
                if status >= _SERVER_ERROR:
                    span.fail(str(status))
            await send(message)

        await endpoint(scope, receive, send_noting)


def _brought(scope: Scope) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == _HEADER]


def _route_of(path: str) -> str:
    if path in _ROUTES:
        return path
    return next((route for prefix, route in _BELOW.items() if path.startswith(prefix)), "")
