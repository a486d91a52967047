"""The sandbox's HTTP interface: three services, their faults, and a count of their calls (``docs/sandbox.md``)."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import msgspec
from aiohttp import web

from ...domain.activity import MalformedRecordError
from ...domain.arai import arai_of
from ...io.model import EmbeddedModel
from ...io.scoring_model import score_object
from .faults import SERVICES, Fault, Faults, spoilt_features, spoilt_score, wait_for
from .people import accounts_answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MAX_BODY_BYTES: Final = 16_000_000
_MAX_VERIFICATIONS: Final = 100_000
_log = logging.getLogger(__name__)


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


class _Verification(msgspec.Struct, rename="camel"):
    global_user_id: str
    verification_id: str
    status: str
    occurred_at: str


class _Sandbox:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.faults = Faults(seed)
        self.calls = {service: Calls() for service in SERVICES}
        self.verifications: dict[str, dict[str, Any]] = {}
        self.scorecard = EmbeddedModel.packaged().scorecard

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/accounts/users/{id}/activity", self.activity),
            web.post("/identity/verifications", self.verify),
            web.get("/identity/verifications", self.list_verifications),
            web.post("/model/score", self.score),
            web.get("/faults", self.get_faults),
            web.put("/faults", self.put_faults),
            web.delete("/faults", self.delete_faults),
            web.get("/calls", self.get_calls),
            web.delete("/calls", self.delete_calls),
            web.get("/health", self.health),
        ]

    @asynccontextmanager
    async def call(self, service: str, users: Sequence[str]) -> AsyncGenerator[Fault | None]:
        """Counts a call and lets it suffer.

        Raises:
            web.HTTPException: the fault is a status.
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
                if fault.status is not None:
                    wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                    raise _error(fault.status, "a fault was asked for", headers=wait)
            yield fault
        finally:
            calls.in_flight -= 1

    async def activity(self, request: web.Request) -> web.StreamResponse:
        user = request.match_info["id"]
        async with self.call("accounts", [user]) as fault:
            answer = accounts_answer(user, self.seed)
            if answer is None:
                raise _error(404, "unknown user")
            return _answer(answer if fault is None else spoilt_features(answer, fault.body), fault)

    async def verify(self, request: web.Request) -> web.StreamResponse:
        verification = await _read(request, _Verification)
        async with self.call("identity", [verification.global_user_id]) as fault:
            key = request.headers.get("Idempotency-Key") or f"{len(self.verifications)}"
            stored = msgspec.to_builtins(verification)
            known = self.verifications.setdefault(key, stored)
            if known != stored:
                raise _error(422, "the Idempotency-Key was used for something else")
            if len(self.verifications) > _MAX_VERIFICATIONS:
                del self.verifications[next(iter(self.verifications))]
            return _answer(known, fault, status=201 if known is stored else 200)

    async def list_verifications(self, request: web.Request) -> web.StreamResponse:
        del request
        return _answer({"verifications": list(self.verifications.values())})

    async def score(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request, dict[str, Any])
        batch = asked.get("requests")
        users = cast("list[Any]", batch) if isinstance(batch, list) else [asked]
        names = [str(user.get("globalUserId")) if isinstance(user, dict) else "" for user in users]  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
        async with self.call("model", names) as fault:
            scores = [self._score(user) for user in users]
            if fault is not None:
                spoilt = set(names if fault.users is None else fault.users)
                scores = [
                    spoilt_score(score, fault.body) if name in spoilt else score
                    for name, score in zip(names, scores, strict=True)
                ]
                if fault.body == "short":
                    scores = scores[:-1]
            if isinstance(batch, list):
                return _answer({"scores": scores}, fault)
            if scores and "error" in scores[0]:
                raise _error(422, scores[0]["error"])
            return _answer(scores[0] if scores else {}, fault)

    def _score(self, asked: Any) -> dict[str, Any]:
        try:
            profile = arai_of({"features": asked["features"]}, 0).profile
        except (MalformedRecordError, KeyError, TypeError) as error:
            return {"error": f"features: {error}"}
        return score_object(self.scorecard.score(profile))

    async def get_faults(self, request: web.Request) -> web.StreamResponse:
        del request
        return _answer(self.faults.shown())

    async def put_faults(self, request: web.Request) -> web.StreamResponse:
        faults = await _read(request, dict[str, Fault])
        if unknown := sorted(set(faults) - set(SERVICES)):
            raise _error(400, f"no such service: {unknown[0][:40]!r}; there are: {', '.join(SERVICES)}")
        self.faults.put(faults)
        return await self.get_faults(request)

    async def delete_faults(self, request: web.Request) -> web.StreamResponse:
        self.faults.clear()
        return await self.get_faults(request)

    async def get_calls(self, request: web.Request) -> web.StreamResponse:
        del request
        return _answer({service: _camel(asdict(calls)) for service, calls in self.calls.items()})

    async def delete_calls(self, request: web.Request) -> web.StreamResponse:
        for calls in self.calls.values():
            calls.restart()
        return await self.get_calls(request)

    async def health(self, request: web.Request) -> web.StreamResponse:
        del request
        return _answer({"status": "ok", "modelVersion": self.scorecard.model_version})


def make_app(seed: int = 0) -> web.Application:
    """The sandbox as an aiohttp application.

    Args:
        seed: of the made-up users and of faults that strike a share of calls.
    """
    app = web.Application(middlewares=[_json_errors], client_max_size=_MAX_BODY_BYTES)
    app.add_routes(_Sandbox(seed).routes())
    return app


def _camel(names: dict[str, Any]) -> dict[str, Any]:
    return {_camel_name(name): value for name, value in names.items()}


def _camel_name(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


async def _read(request: web.Request, kind: Any) -> Any:
    """The request's body.

    Raises:
        web.HTTPException: it is not JSON of that kind.
    """
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _error(400, str(error)) from None


def _answer(value: Any, fault: Fault | None = None, status: int = 200) -> web.Response:
    # The standard library writes NaN, which is no JSON: what a broken service does.
    text = json.dumps(value, ensure_ascii=False)
    if fault is not None and fault.body == "half":
        text = text[: len(text) // 2]
    if fault is not None and fault.body == "html":
        return web.Response(text="<html>Bad gateway</html>", content_type="text/html", status=status)
    return web.Response(body=text.encode(errors="replace"), content_type="application/json", status=status)


class _JsonError(web.HTTPException):
    """An error as JSON, with the status it was made with."""

    status_code = 500


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.HTTPException:
    kind = type("_JsonError", (_JsonError,), {"status_code": status})
    return kind(text=_error_text(status, message), content_type="application/json", headers=headers)


def _error_text(status: int, message: str) -> str:
    server_fault = status >= 500  # noqa: PLR2004 - HTTP's classes of statuses
    kind = "ServerError" if server_fault else "ClientError"
    return json.dumps({"errors": [{"message": message, "errorType": kind, "errorInfo": {"code": status}}]})


@web.middleware
async def _json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors of aiohttp itself (no such path, too large) and of ours as JSON too."""
    try:
        return await handler(request)
    except _JsonError:
        raise
    except web.HTTPException as error:
        headers = {name: value for name, value in error.headers.items() if name == "Allow"}
        raise _error(error.status, error.reason, headers=headers) from None
    except asyncio.CancelledError:
        raise
    except Exception:
        _log.exception("the sandbox failed")
        raise _error(500, "the sandbox failed: this is a defect of fan-identity") from None
