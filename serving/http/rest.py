"""What every path but ``/arm`` goes through: body cap, headers, the request's id, one log line, no stack outside."""

import logging
import time
from collections.abc import Sequence
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Router

from ...io.telemetry.metrics import observe_request, outcome_of
from ..context import FunctionError
from .answers import (
    CORRELATION_HEADER,
    MAX_BODY_BYTES,
    SECURITY_HEADERS,
    ClientGoneError,
    Header,
    Message,
    Receive,
    Scope,
    Send,
    correlation_id,
    log_defect,
    log_request,
    send_error,
    too_large,
)

_log: Final = logging.getLogger("fan_identity.http")
_OPERATIONS: Final = {
    "/graphql": "graphql",
    "/health": "health",
    "/ready": "health",
    "/fans": "pages",
    "/graphiql": "pages",
    "/docs": "pages",
    "/openapi.json": "pages",
    "/": "pages",
}
"""By path, for metrics; the log has the path itself, and of all others only ``console`` or ``other``."""
_CONSOLE: Final = "/console"
STATE_KEY: Final = "correlation_id"
"""Where a request's id is in ``scope["state"]``."""


class GuardedRoutes:
    """The ASGI application of routes; errors of every kind leave in the API's shape.

    Args:
        routes: of Starlette.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        began = time.perf_counter()
        correlation = correlation_id(scope["headers"])
        scope["app"] = self  # Starlette then raises what would else be an answer of another shape
        scope.setdefault("state", {})[STATE_KEY] = correlation.decode()
        received = 0
        status = 0

        async def receive_capped() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise too_large()
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                own = {name for name, _ in headers}
                headers += [header for header in SECURITY_HEADERS if header[0] not in own]
                message = {**message, "headers": [*headers, (CORRELATION_HEADER, correlation)]}
            await send(message)

        error: FunctionError | None = None
        more: Sequence[Header] = ()
        try:
            await self._router(scope, receive_capped, send_guarded)
        except FunctionError as refused:
            error = refused
        except HTTPException as refused:
            error, more = _translated(refused)
        except (ClientGoneError, ClientDisconnect):
            return
        except Exception as defect:
            log_defect(_log, defect, correlation)
            error = FunctionError("something went wrong here", "500", "INTERNAL")
        if error is not None and not status:
            status = int(error.error_type)
            await send_error(send, error, correlation, more)
        path, took = scope["path"], time.perf_counter() - began
        operation = _operation(path)
        observe_request(operation, took, outcome_of(status))
        if _log.isEnabledFor(logging.INFO):
            route = path if path in _OPERATIONS else operation
            log_request(_log, route, status, round(took * 1_000, 3), correlation)


def _operation(path: str) -> str:
    if path == _CONSOLE or path.startswith(_CONSOLE + "/"):
        return "console"
    return _OPERATIONS.get(path, "other")


def _translated(refused: HTTPException) -> tuple[FunctionError, Sequence[Header]]:
    """Starlette's own refusals: no such path, no such method."""
    if refused.status_code == 405:  # noqa: PLR2004
        allowed = (refused.headers or {}).get("Allow", "")
        return FunctionError("this method is not allowed here", "405", "METHOD_NOT_ALLOWED"), (
            (b"allow", allowed.encode()),
        )
    if refused.status_code == 404:  # noqa: PLR2004
        return FunctionError("there is no such path", "404", "NOT_FOUND"), ()
    return FunctionError("the request cannot be answered", str(refused.status_code), "BAD_REQUEST"), ()
