"""The services the API asks, made up: accounts, campaigns, phone scores, eligibility, events, artists, identity checks.

Everything is derived from the ids asked for, the same at every call. Ids that begin with ``unknown-`` are unknown.
Paths and answers are those of ``docs/upstreams.md``.
"""

import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from .answers import Counted, answer_of, error_of, read
from .faults import Fault
from .people import UNKNOWN_PREFIX, draw

_MOST_SESSIONS: Final = 100_000
_SESSIONS: Final = uuid.UUID("6f1a3c1e-6d0b-4b5e-9e0e-6d2b8f0f5a11")
_GENRES: Final = ("rock", "pop", "jazz", "folk", "hip-hop")
_RISKY: Final = 40.0


class _PhoneNumber(msgspec.Struct, rename="camel"):
    global_user_id: str
    phone_number: str


class _Session(msgspec.Struct, rename="camel"):
    global_user_id: str
    request_token: str


class ApiUpstreams:
    """The services' endpoints.

    Args:
        counted: counts their calls and lets them suffer.
        seed: of what is made up.
    """

    def __init__(self, counted: Counted, seed: int) -> None:
        self._counted = counted
        self._seed = seed
        self._sessions: dict[str, dict[str, str]] = {}

    def routes(self) -> list[web.RouteDef]:
        """The routes, each service under its setting's name."""
        return [
            web.get("/account-info/accounts/{id}", self._looked_up("account_info", self._account)),
            web.get("/campaigns/campaigns/{id}", self._looked_up("campaigns", self._campaign)),
            web.get("/event-details/events/{id}", self._looked_up("event_details", self._event)),
            web.get("/lnaa/artists/{id}", self._looked_up("lnaa", self._artist)),
            web.get("/eligibility/events/{event}/fans/{id}", self._eligibility),
            web.post("/phone-scores/phone-scores", self._phone_score),
            web.post("/identity-checks/liveness-sessions", self._start_session),
        ]

    def _looked_up(self, service: str, make: Callable[[str], dict[str, Any]]) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            name = request.match_info["id"]
            async with self._counted.call(service, [name]) as fault:
                return _answered(make(name), fault, name)

        return handle

    async def _eligibility(self, request: web.Request) -> web.StreamResponse:
        event, user = request.match_info["event"], request.match_info["id"]
        async with self._counted.call("eligibility", [user]) as fault:
            eligible = self._draw("eligibility", event, user) < 0.9  # noqa: PLR2004
            return _answered({"eligible": eligible, "reason": None if eligible else "ALREADY_REGISTERED"}, fault, event)

    async def _phone_score(self, request: web.Request) -> web.StreamResponse:
        asked = await read(request, _PhoneNumber)
        async with self._counted.call("phone_scores", [asked.global_user_id]) as fault:
            score = round(100 * self._draw("phone", asked.phone_number), 1)
            answer = {"score": score, "riskLevel": "high" if score < _RISKY else "low"}
            return _answered(answer, fault, asked.phone_number)

    async def _start_session(self, request: web.Request) -> web.StreamResponse:
        asked = await read(request, _Session)
        async with self._counted.call("identity_checks", [asked.global_user_id]) as fault:
            name = str(uuid.uuid5(_SESSIONS, asked.request_token))
            session = self._sessions.setdefault(name, {"sessionId": name, "status": "CREATED"})
            if len(self._sessions) > _MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            return _answered(session, fault, "")

    def _account(self, user: str) -> dict[str, Any]:
        number = int(self._draw("account", user) * 1_000_000)
        return {"globalUserId": user, "memberId": f"member-{number}", "email": f"fan-{number}@example.com"}

    def _campaign(self, name: str) -> dict[str, Any]:
        starts, ends = self._dates("campaign", name)
        return {
            "campaignId": name,
            "name": f"Campaign {name[:40]}",
            "status": "OPEN",
            "startsAt": starts,
            "endsAt": ends,
        }

    def _event(self, name: str) -> dict[str, Any]:
        on_sale, starts = self._dates("event", name)
        return {
            "eventId": name,
            "name": f"Event {name[:40]}",
            "venue": f"Hall {int(self._draw('venue', name) * 20) + 1}",
            "startsAt": starts,
            "onSaleAt": on_sale,
        }

    def _artist(self, name: str) -> dict[str, Any]:
        genre = _GENRES[int(self._draw("artist", name) * len(_GENRES))]
        return {"artistId": name, "name": f"Artist {name[:40]}", "genre": genre}

    def _dates(self, what: str, name: str) -> tuple[str, str]:
        day = int(self._draw(what, name) * 27) + 1
        return f"2027-03-{day:02}T09:00:00Z", f"2027-06-{day:02}T19:00:00Z"

    def _draw(self, what: str, *names: str) -> float:
        return draw("\0".join(names), self._seed, what)


def _answered(answer: dict[str, Any], fault: Fault | None, name: str) -> web.Response:
    """The answer, spoilt as the fault says; 404 for what is unknown."""
    if name.startswith(UNKNOWN_PREFIX):
        raise error_of(404, "unknown")
    if fault is not None and fault.body in ("nan", "text"):
        # Where a number or a truth value belongs, or else in every field, something of another type.
        spoilt = float("nan") if fault.body == "nan" else {"not": "as agreed"}
        answer = dict.fromkeys(answer, spoilt)
    return answer_of(answer, fault)
