"""The whole API as one ASGI application: what it is made of, opened when the server starts and closed when it ends."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import BaseRoute, Route

from ...io.errors import FanIdentityError, UsageError, text_of
from ...io.telemetry import tracing
from ..arm import ArmLookup
from .answers import Receive, Scope, Send
from .arm_endpoint import PATH, ArmEndpoint
from .authentication import Authentication
from .health import Check, Needed, check_all, health, readiness
from .openapi import DOCS_POLICY, docs_page, openapi
from .request_traces import is_recorded, traced
from .rest import GuardedRoutes

_log: Final = logging.getLogger("fan_identity.http")
_SLASH: Final = PATH + b"/"

Closer = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Parts:
    """What the application is made of.

    Attributes:
        arm: the ARM lookup.
        authentication: finds out who asks.
        checks: of ``/ready``, by the part's name.
        needed: of each group one part has to answer for ``/ready`` to say yes.
        routes: more routes, such as ``/graphql``.
        closers: what is run when the server ends, the last first.
        trusts_traces: whether callers' traces are continued; else theirs are linked to.
    """

    arm: ArmLookup
    authentication: Authentication
    checks: Mapping[str, Check]
    needed: Needed = ()
    routes: Sequence[BaseRoute] = ()
    closers: Sequence[Closer] = field(default_factory=tuple[Closer, ...])
    trusts_traces: bool = False


Open = Callable[[], Awaitable[Parts]]


class Application:
    """The ASGI application. Its parts belong to the event loop: they are opened when the server starts (lifespan).

    Args:
        open_parts: opens them.
        started: is called once they are open.
    """

    def __init__(self, open_parts: Open, started: Callable[[], None] = lambda: None) -> None:
        self._open_parts = open_parts
        self._started = started
        self._exits = AsyncExitStack()
        self._arm: ArmEndpoint | None = None
        self._rest: GuardedRoutes | None = None
        self._trusts_traces = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or follows the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and self._rest is not None:
            path = scope["raw_path"]
            of_arm = self._arm is not None and (path.startswith(_SLASH) or path == PATH)
            endpoint = self._arm if self._arm is not None and of_arm else self._rest
            if tracing.switch.on and is_recorded(scope, trusts=self._trusts_traces):
                await traced(endpoint, scope, receive, send, trusts=self._trusts_traces)
            else:
                await endpoint(scope, receive, send)

    async def start(self) -> None:
        """Opens the parts and asks each for an answer once, so that the first request does not wait for it.

        A part that is away is told and waited for no longer: the server answers with what there is.

        Raises:
            FanIdentityError: a setting is wrong.
        """
        parts = await self._open_parts()
        for closer in parts.closers:
            self._exits.push_async_callback(closer)
        for name, problem in (await check_all(parts.checks)).items():
            if isinstance(problem, UsageError):
                raise problem
            if problem is not None:
                _log.warning("starting though something does not answer: %s: %s", name, text_of(problem))
        self._arm = ArmEndpoint(parts.arm, parts.authentication)
        self._rest = GuardedRoutes([*_own_routes(parts), *parts.routes])
        self._trusts_traces = parts.trusts_traces
        self._started()

    async def stop(self) -> None:
        """Closes the parts."""
        await self._exits.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        try:
            await self.start()
        except FanIdentityError as error:
            _log.error("the server does not start: %s", error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _own_routes(parts: Parts) -> list[BaseRoute]:
    paths = {getattr(route, "path", "") for route in parts.routes}
    document = openapi(graphql="/graphql" in paths, console="/console/api/me" in paths)
    page = docs_page(document)

    async def serve_document(request: Request) -> JSONResponse:
        del request
        return JSONResponse(document)

    async def serve_page(request: Request) -> HTMLResponse:
        del request
        return HTMLResponse(page, headers={"content-security-policy": DOCS_POLICY})

    async def to_page(request: Request) -> RedirectResponse:
        del request
        return RedirectResponse("/docs", status_code=302)

    return [
        Route("/health", health),
        Route("/ready", readiness(parts.checks, parts.needed)),
        Route("/openapi.json", serve_document),
        Route("/docs", serve_page),
        Route("/", to_page),
    ]
