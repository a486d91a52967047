"""What the sandbox's services share: counted calls that suffer faults, bodies read, answers written, errors as JSON."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from .faults import SERVICES, Fault, Faults, wait_for

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HUGE_BYTES: Final = 2_000_000
_log = logging.getLogger(__name__)


class ResetAskedError(Exception):
    """The fault is that the connection is reset."""


@dataclass
class Calls:
    """Calls of one service so far.

    Attributes:
        calls: begun.
        in_flight: not yet answered.
        in_flight_max: the most at one time.
        faulty: that suffered a fault.
        users: asked for, over all calls.
    """

    calls: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    faulty: int = 0
    users: int = 0

    def restart(self) -> None:
        """Counts anew; calls in flight stay so."""
        self.calls = self.faulty = self.users = 0
        self.in_flight_max = self.in_flight


class Counted:
    """The calls of all services, and the faults they suffer."""

    def __init__(self, seed: int) -> None:
        self.faults = Faults(seed)
        self.calls = {service: Calls() for service in SERVICES}

    @asynccontextmanager
    async def call(self, service: str, users: Sequence[str]) -> AsyncGenerator[Fault | None]:
        """Counts a call and lets it suffer.

        Raises:
            web.HTTPException: the fault is a status or a redirect.
            ResetAskedError: the fault is a reset.
        """
        calls = self.calls[service]
        calls.calls += 1
        calls.users += len(users)
        calls.in_flight += 1
        calls.in_flight_max = max(calls.in_flight_max, calls.in_flight)
        try:
            fault = self.faults.drawn(service, users)
            if fault is not None:
                calls.faulty += 1
                await wait_for(fault)
                if fault.reset:
                    raise ResetAskedError
                if fault.redirect is not None:
                    raise error_of(307, "a fault was asked for", headers={"Location": fault.redirect})
                if fault.status is not None:
                    wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                    raise error_of(fault.status, "a fault was asked for", headers=wait)
            yield fault
        finally:
            calls.in_flight -= 1


async def read(request: web.Request, kind: Any) -> Any:
    """The request's body.

    Raises:
        web.HTTPException: it is not JSON of that kind.
    """
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise error_of(400, str(error)) from None


def answer_of(value: Any, fault: Fault | None = None, status: int = 200) -> web.Response:
    """An answer of JSON, spoilt where the fault spoils all of it."""
    # The standard library writes NaN, which is no JSON: what a broken service does.
    text = json.dumps(value, ensure_ascii=False)
    if fault is not None and fault.body == "half":
        text = text[: len(text) // 2]
    if fault is not None and fault.body == "huge":
        text = json.dumps({**value, "filling": "x" * _HUGE_BYTES})
    if fault is not None and fault.body == "html":
        return web.Response(text="<html>Bad gateway</html>", content_type="text/html", status=status)
    return web.Response(body=text.encode(errors="replace"), content_type="application/json", status=status)


class _JsonError(web.HTTPException):
    """An error as JSON, with the status it was made with."""

    status_code = 500


def error_of(status: int, message: str, headers: dict[str, str] | None = None) -> web.HTTPException:
    """An error of that status as JSON, to be raised."""
    kind = type("_JsonError", (_JsonError,), {"status_code": status})
    return kind(text=_error_text(status, message), content_type="application/json", headers=headers)


def _error_text(status: int, message: str) -> str:
    server_fault = status >= 500  # noqa: PLR2004 - HTTP's classes of statuses
    kind = "ServerError" if server_fault else "ClientError"
    return json.dumps({"errors": [{"message": message, "errorType": kind, "errorInfo": {"code": status}}]})


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors of aiohttp itself (no such path, too large) and of ours as JSON too."""
    try:
        return await handler(request)
    except _JsonError:
        raise
    except ResetAskedError:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    except web.HTTPException as error:
        headers = {name: value for name, value in error.headers.items() if name == "Allow"}
        raise error_of(error.status, error.reason, headers=headers) from None
    except asyncio.CancelledError:
        raise
    except Exception:
        _log.exception("the sandbox failed")
        raise error_of(500, "the sandbox failed: this is a defect of fan-identity") from None
