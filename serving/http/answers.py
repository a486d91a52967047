"""Answers as they leave: one shape for errors, the headers every answer has, ids of requests."""

import itertools
import logging
import os
import re
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final

import msgspec

from ..context import FunctionError
from ..rate_limits import RateLimitedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

MAX_BODY_BYTES: Final = 65_536
"""The largest body taken; nothing the API is asked needs more."""

CORRELATION_HEADER: Final = b"x-correlation-id"
"""Names a request, in logs of callers, ours and those of upstreams."""

SECURITY_HEADERS: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""Of every answer that sets none of these itself (OWASP REST Security Cheat Sheet)."""

_JSON_HEADERS: Final[tuple[Header, ...]] = ((b"content-type", b"application/json"), *SECURITY_HEADERS)
_CORRELATION_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_OF_STATUS: Final[dict[int, tuple[Header, ...]]] = {
    401: ((b"www-authenticate", b"Bearer"),),
    503: ((b"retry-after", b"1"),),
}
_ids: Final = itertools.count(1)
_process: dict[int, bytes] = {}
_encode: Final = msgspec.json.Encoder().encode


def correlation_id(headers: Iterable[Header]) -> bytes:
    """The request's id: the caller's where it is one, else a new one."""
    for name, value in headers:
        if name == CORRELATION_HEADER and _CORRELATION_ID.fullmatch(value):
            return value
    return b"%s-%x" % (_process_name(), next(_ids))


def _process_name() -> bytes:
    """A random name of this process: with a number behind it, it names a request at a fraction of a UUID's cost."""
    pid = os.getpid()
    name = _process.get(pid)
    if name is None:  # also in a fork
        name = _process[pid] = os.urandom(10).hex().encode()
    return name


def error_body(error: FunctionError) -> bytes:
    """``errors[{message, errorType, errorInfo{code}}]``."""
    return _encode({"errors": [error.shown()]})


async def send_error(send: Send, error: FunctionError, correlation: bytes, more: Sequence[Header] = ()) -> None:
    """Sends an error; its type is the HTTP status."""
    status = int(error.error_type)
    if isinstance(error, RateLimitedError):
        more = (*more, (b"retry-after", b"%d" % error.retry_after))
    await send_json(send, status, error_body(error), correlation, (*_OF_STATUS.get(status, ()), *more))


async def send_json(send: Send, status: int, body: bytes, correlation: bytes, more: Sequence[Header] = ()) -> None:
    """Sends a whole answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-length", b"%d" % len(body)),
                (CORRELATION_HEADER, correlation),
                *_JSON_HEADERS,
                *more,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def log_defect(log: logging.Logger, defect: Exception, correlation: bytes) -> None:
    """Logs an exception nobody expected: its kind and place. Its text may hold what the request brought."""
    frame = traceback.extract_tb(defect.__traceback__)[-1]
    log.error(
        "a request failed: this is a defect of fan-identity",
        extra={
            "error": type(defect).__name__,
            "at": f"{frame.name}:{frame.lineno}",
            "requestId": correlation.decode(),
        },
    )


def log_request(log: logging.Logger, route: str, status: int, milliseconds: float, correlation: bytes) -> None:
    """Logs an answered request: neither path nor query, which may hold a fan's id."""
    fields = {"route": route, "status": status, "ms": milliseconds, "requestId": correlation.decode()}
    log.info("request", extra=fields)


def too_large() -> FunctionError:
    """The error for a body beyond ``MAX_BODY_BYTES``."""
    return FunctionError(f"the body is larger than {MAX_BODY_BYTES:,} bytes", "413", "TOO_LARGE")


class ClientGoneError(Exception):
    """The client went away before it had sent everything."""


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """A request's whole body.

    Raises:
        FunctionError: 413, it is larger than ``MAX_BODY_BYTES``.
        ClientGoneError: it never came whole.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:  # the server checked that it is a number
            raise too_large()
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise too_large()
        if not message.get("more_body", False):
            return bytes(body)
