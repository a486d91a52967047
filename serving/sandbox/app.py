"""The sandbox's HTTP interface: the workers' services, the API's, faults, and counts (``docs/sandbox.md``)."""

from dataclasses import asdict
from typing import Any, Final, cast

import msgspec
from aiohttp import web

from ...domain.activity import MalformedRecordError
from ...domain.arai import arai_of
from ...io.model import EmbeddedModel
from ...io.scoring_model import score_object
from .answers import Counted, answer_of, error_of, json_errors, read
from .api_upstreams import ApiUpstreams
from .faults import SERVICES, Fault, spoilt_features, spoilt_score
from .people import accounts_answer

_MAX_BODY_BYTES: Final = 16_000_000
_MAX_VERIFICATIONS: Final = 100_000


class _Verification(msgspec.Struct, rename="camel"):
    global_user_id: str
    verification_id: str
    status: str
    occurred_at: str


class _Sandbox:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counted = Counted(seed)
        self.faults, self.calls, self.call = self.counted.faults, self.counted.calls, self.counted.call
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

    async def activity(self, request: web.Request) -> web.StreamResponse:
        user = request.match_info["id"]
        async with self.call("accounts", [user]) as fault:
            answer = accounts_answer(user, self.seed)
            if answer is None:
                raise error_of(404, "unknown user")
            return answer_of(answer if fault is None else spoilt_features(answer, fault.body), fault)

    async def verify(self, request: web.Request) -> web.StreamResponse:
        verification = await read(request, _Verification)
        async with self.call("identity", [verification.global_user_id]) as fault:
            key = request.headers.get("Idempotency-Key") or f"{len(self.verifications)}"
            stored = msgspec.to_builtins(verification)
            known = self.verifications.setdefault(key, stored)
            if known != stored:
                raise error_of(422, "the Idempotency-Key was used for something else")
            if len(self.verifications) > _MAX_VERIFICATIONS:
                del self.verifications[next(iter(self.verifications))]
            return answer_of(known, fault, status=201 if known is stored else 200)

    async def list_verifications(self, request: web.Request) -> web.StreamResponse:
        del request
        return answer_of({"verifications": list(self.verifications.values())})

    async def score(self, request: web.Request) -> web.StreamResponse:
        asked = await read(request, dict[str, Any])
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
                return answer_of({"scores": scores}, fault)
            if scores and "error" in scores[0]:
                raise error_of(422, scores[0]["error"])
            return answer_of(scores[0] if scores else {}, fault)

    def _score(self, asked: Any) -> dict[str, Any]:
        try:
            profile = arai_of({"features": asked["features"]}, 0).profile
        except (MalformedRecordError, KeyError, TypeError) as error:
            return {"error": f"features: {error}"}
        return score_object(self.scorecard.score(profile))

    async def get_faults(self, request: web.Request) -> web.StreamResponse:
        del request
        return answer_of(self.faults.shown())

    async def put_faults(self, request: web.Request) -> web.StreamResponse:
        faults = await read(request, dict[str, Fault])
        if unknown := sorted(set(faults) - set(SERVICES)):
            raise error_of(400, f"no such service: {unknown[0][:40]!r}; there are: {', '.join(SERVICES)}")
        self.faults.put(faults)
        return await self.get_faults(request)

    async def delete_faults(self, request: web.Request) -> web.StreamResponse:
        self.faults.clear()
        return await self.get_faults(request)

    async def get_calls(self, request: web.Request) -> web.StreamResponse:
        del request
        return answer_of({service: _camel(asdict(calls)) for service, calls in self.calls.items()})

    async def delete_calls(self, request: web.Request) -> web.StreamResponse:
        for calls in self.calls.values():
            calls.restart()
        return await self.get_calls(request)

    async def health(self, request: web.Request) -> web.StreamResponse:
        del request
        return answer_of({"status": "ok", "modelVersion": self.scorecard.model_version})


def make_app(seed: int = 0) -> web.Application:
    """The sandbox as an aiohttp application.

    Args:
        seed: of the made-up users and of faults that strike a share of calls.
    """
    app = web.Application(middlewares=[json_errors], client_max_size=_MAX_BODY_BYTES)
    sandbox = _Sandbox(seed)
    app.add_routes([*sandbox.routes(), *ApiUpstreams(sandbox.counted, seed).routes()])
    return app


def _camel(names: dict[str, Any]) -> dict[str, Any]:
    return {_camel_name(name): value for name, value in names.items()}


def _camel_name(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)
