"""``GET /arm/{globalUserId}`` and ``POST /arm`` as plain ASGI: the one endpoint whose every microsecond counts."""

import logging
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from ...domain.access import CallerKind, Identity
from ...domain.measures import REQUEST_OUTCOMES
from ...io.errors import UnavailableError
from ...io.telemetry import metrics
from ...io.telemetry.metrics import outcome_of
from ..arm import ArmLookup, shown
from ..context import FunctionError, unavailable
from ..data_sources import ArmScore
from ..shared import require_known, require_reader_of
from .answers import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    correlation_id,
    log_defect,
    log_request,
    read_body,
    send_error,
    send_json,
)
from .authentication import Authentication

PATH: Final = b"/arm"
MOST_FANS: Final = 100
"""Fans that one ``POST /arm`` may ask for."""

_log: Final = logging.getLogger("fan_identity.http")
_encode: Final = msgspec.json.Encoder().encode
_SCORES: Final = {
    (risk, stale): _encode(shown(ArmScore(risk, stale=stale), detail=False))
    for risk in range(1, 6)
    for stale in (False, True)
}
_UNKNOWN: Final = _encode(shown(None, detail=False))
_QUERIES: Final = {b"": False, b"detail=true": True, b"detail=false": False}


_ANSWERED: Final = {outcome: metrics.requests["arm", outcome] for outcome in REQUEST_OUTCOMES}
_OK: Final = _ANSWERED["ok"]
# Looked up once: they are told of every request.


class _Ask(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    global_user_ids: list[str]


_decode: Final = msgspec.json.Decoder(_Ask).decode


class ArmEndpoint:
    """The ASGI application of paths that begin with ``/arm``.

    Args:
        arm: the lookup.
        authentication: finds out who asks.
    """

    def __init__(self, arm: ArmLookup, authentication: Authentication) -> None:
        self._arm = arm
        self._authentication = authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        logs = _log.isEnabledFor(logging.INFO)
        began = time.perf_counter() if logs or metrics.switch.on else 0.0
        correlation = correlation_id(scope["headers"])
        status = 200
        try:
            body = await self._answer(scope, receive)
        except FunctionError as error:
            status = int(error.error_type)
            await send_error(send, error, correlation, _allow(scope) if status == 405 else ())  # noqa: PLR2004
        except ClientGoneError:
            return
        except Exception as defect:
            status = 500
            log_defect(_log, defect, correlation)
            await send_error(send, FunctionError("something went wrong here", "500", "INTERNAL"), correlation)
        else:
            await send_json(send, 200, body, correlation)
        if began:
            took = time.perf_counter() - began
            if scope["raw_path"] == PATH:
                metrics.observe_request("arm_many", took, outcome_of(status))
            elif metrics.switch.on:
                (_OK if status == 200 else _ANSWERED[outcome_of(status)]).add(took)  # noqa: PLR2004
            if logs:
                log_request(_log, "/arm", status, round(took * 1_000, 3), correlation)

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        path: bytes = scope["raw_path"]
        method: str = scope["method"]
        detail = _detail(scope["query_string"])
        if len(path) > len(PATH) and path[4:5] == b"/" and b"/" not in path[5:]:
            if method not in ("GET", "HEAD"):
                raise _method_not_allowed()
            return await self._one(scope, path[5:], detail)
        if path != PATH:
            raise FunctionError("there is no such path", "404", "NOT_FOUND")
        if method != "POST":
            raise _method_not_allowed()
        return await self._many(scope, receive, detail)

    async def _one(self, scope: Scope, quoted: bytes, detail: bool) -> bytes:
        # Most callers ask again and again with one token: no coroutine for what is known.
        identity = self._authentication.known(scope["headers"]) or await self._authentication.identify(scope)
        global_user_id = _decoded(quoted)
        require_reader_of(identity, global_user_id)
        if identity.kind is CallerKind.API_KEY:
            await self._authentication.admit(identity, 1)
        try:
            score = await self._arm.get(global_user_id)
        except UnavailableError as error:
            raise unavailable(error) from None
        if detail:
            return _encode(shown(score, detail=True))
        return _UNKNOWN if score is None else _SCORES[score.arm_score, score.stale]

    async def _many(self, scope: Scope, receive: Receive, detail: bool) -> bytes:
        identity = await self._authentication.identify(scope)
        require_known(identity)
        asked = _asked(await read_body(scope, receive), identity)
        await self._authentication.admit(identity, max(len(asked), 1))
        outcomes = await self._arm.outcomes(asked)
        away = [one for one in outcomes if isinstance(one, UnavailableError)]
        if away and len(away) == len(outcomes):
            raise unavailable(away[0])
        return _encode({"armScores": [_outcome(one, detail=detail) for one in outcomes]})


def _asked(body: bytes, identity: Identity) -> Sequence[str]:
    try:
        asked = _decode(body).global_user_ids
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise FunctionError('the body is JSON such as {"globalUserIds": ["a", "b"]}', "400", "BAD_REQUEST") from None
    if len(asked) > MOST_FANS:
        raise FunctionError(f"at most {MOST_FANS} globalUserIds in one request", "400", "BAD_INPUT")
    for global_user_id in asked:
        require_reader_of(identity, global_user_id)
    return asked


def _outcome(score: ArmScore | UnavailableError | None, *, detail: bool) -> dict[str, Any]:
    if isinstance(score, UnavailableError):
        return {"armScore": None, "errors": [unavailable(score).shown()]}
    return shown(score, detail=detail)


def _decoded(quoted: bytes) -> str:
    """The id in a path, percent-decoded once: whatever it contains is the id.

    Raises:
        FunctionError: 400, it is not UTF-8.
    """
    try:
        return unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        raise FunctionError("globalUserId is not UTF-8", "400", "BAD_INPUT") from None


def _detail(query: bytes) -> bool:
    known = _QUERIES.get(query)
    if known is not None:
        return known
    parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    if len(parameters) == 1 and parameters[0] in (("detail", "true"), ("detail", "false")):
        return parameters[0][1] == "true"
    raise FunctionError("the one parameter there is: detail=true or detail=false", "400", "BAD_INPUT")


def _method_not_allowed() -> FunctionError:
    return FunctionError("this method is not allowed here", "405", "METHOD_NOT_ALLOWED")


def _allow(scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"allow", b"POST" if scope["raw_path"] == PATH else b"GET, HEAD"),)
