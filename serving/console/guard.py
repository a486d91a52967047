"""What every request of the console's API goes through: who asks, how often, and whether what is asked is well-formed.

A handler is given a checked struct: parameters of path, query or body are converted by msgspec, and what a struct does
not name, repeats or does not allow is refused before anything is looked up.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...domain.access import Identity
from ...io.errors import FanIdentityError, UnavailableError
from ..context import FunctionError, unavailable
from ..http.answers import read_body
from ..http.authentication import Authentication
from ..rate_limits import LocalRateLimiter, RateLimitedError, RateLimiter
from ..tokens.strict_json import read_object

PREFIX: Final = "/console/api"
READS_A_MINUTE: Final = 1_200
"""Questions a caller may ask: a page asks some twenty a minute."""

ACTS_A_MINUTE: Final = 120

_MAX_PARAMETERS: Final = 20
_encode: Final = msgspec.json.Encoder().encode
_log: Final = logging.getLogger("fan_identity.console")

Parameters = TypeVar("Parameters", bound=msgspec.Struct)


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class Asked(msgspec.Struct, frozen=True):
    """A request that may be answered.

    Attributes:
        identity: who asks.
        request_id: names the request in logs and in the audit log.
    """

    identity: Identity
    request_id: str


Handler = Callable[[Asked, Parameters], Awaitable[Any]]
"""Answers with a JSON value. Raises FunctionError to refuse, FanIdentityError where something is out of reach."""


class Guard:
    """Makes routes of handlers.

    Args:
        authentication: of the API.
        limiter: of callers, by their subject; this process's where None.
    """

    def __init__(self, authentication: Authentication, limiter: RateLimiter | None = None) -> None:
        self._authentication = authentication
        self._limiter = limiter or LocalRateLimiter()

    def read(self, path: str, answer: Handler[Parameters], parameters: type[Parameters]) -> Route:
        """``GET /console/api<path>``, for who has ``console:read``.

        Args:
            path: such as ``/audit`` or ``/jobs/{job}``.
            answer: the handler.
            parameters: of path and query together; those of the path have names of their own.
        """

        async def serve(request: Request) -> Response:
            asked = await self._admitted(request, acts=False)
            return _json(await answer(asked, _of_query(request, parameters)))

        return Route(PREFIX + path, _translated(serve), methods=["GET"])

    def act(self, path: str, answer: Handler[Parameters], parameters: type[Parameters]) -> Route:
        """``POST /console/api<path>`` with a JSON object, for who has ``console:act`` too.

        Args:
            path: as in ``read``.
            answer: the handler.
            parameters: of path and body together; a query is refused.
        """

        async def serve(request: Request) -> Response:
            asked = await self._admitted(request, acts=True)
            return _json(await answer(asked, await _of_body(request, parameters)))

        return Route(PREFIX + path, _translated(serve), methods=["POST"])

    async def _admitted(self, request: Request, *, acts: bool) -> Asked:
        identity = await self._authentication.identify(request.scope)
        if not identity.is_known:
            raise FunctionError("show a token or an API key", "401", "NOT_LOGGED_IN")
        if not identity.reads_console:
            raise FunctionError("the console is for operators (scope console:read)", "403", "FORBIDDEN")
        if acts and not identity.acts_in_console:
            raise FunctionError("this needs the scope console:act", "403", "FORBIDDEN")
        await self._authentication.admit(identity, 1)
        name, limit = ("acts", ACTS_A_MINUTE) if acts else ("reads", READS_A_MINUTE)
        taken = await self._limiter.take(f"console:{name}:{identity.kind}:{identity.subject}", limit)
        if not taken.allowed:
            raise RateLimitedError(taken.retry_after)
        return Asked(identity, request.state.correlation_id)


def _translated(serve: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            return await serve(request)
        except UnavailableError as error:
            raise unavailable(error) from None
        except FanIdentityError as error:
            # Its text names settings and addresses: for the log, not for the browser.
            _log.warning("the console cannot answer: %s", error)
            raise FunctionError(
                "a part is not available at the moment; the log says why", "503", "UNAVAILABLE"
            ) from None

    return answered


def bad_input(message: str) -> FunctionError:
    """400: a parameter is not what it should be; the message names it and never repeats its value."""
    return FunctionError(message, "400", "BAD_INPUT")


def not_found(what: str) -> FunctionError:
    """404: there is no such thing."""
    return FunctionError(f"there is no such {what}", "404", "NOT_FOUND")


def conflict(message: str, code: str) -> FunctionError:
    """409: what was asked for does not fit what is there now."""
    return FunctionError(message, "409", code)


def _of_query(request: Request, kind: type[Parameters]) -> Parameters:
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(request.scope["query_string"]),
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError:
        raise bad_input("the query is no list of parameters in UTF-8") from None
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names) or set(names) & set(request.path_params):
        raise bad_input("a parameter is given twice")
    return _converted({**request.path_params, **dict(pairs)}, kind, strict=False)


async def _of_body(request: Request, kind: type[Parameters]) -> Parameters:
    if request.scope["query_string"]:
        raise bad_input("this takes a body, and no query")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise FunctionError("send the body as application/json", "415", "UNSUPPORTED_MEDIA_TYPE")
    body = await read_body(request.scope, request.receive)
    try:
        given = read_object(body or b"{}")
    except ValueError:
        raise bad_input("the body is no JSON object") from None
    if set(given) & set(request.path_params):
        raise bad_input("a parameter of the path is given twice")
    return _converted({**request.path_params, **given}, kind, strict=True)


def _converted(given: dict[str, Any], kind: type[Parameters], *, strict: bool) -> Parameters:
    try:
        return msgspec.convert(given, kind, strict=strict)
    except ValueError:  # msgspec's errors are some
        # msgspec's text may quote what was given, as may a check of ours: names alone are told.
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind)) or "none"
        raise bad_input(f"a parameter is unknown, missing or not what it should be; there are: {known}") from None


def _json(value: Any) -> Response:
    return Response(_encode(value), media_type="application/json")
