"""Data sources in memory, with the same contract as the real ones, that can be slow or away."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fan_identity.domain.access import READ_ANY_SCOPE, CallerKind, Identity
from fan_identity.io.errors import UnavailableError
from fan_identity.serving.context import Request
from fan_identity.serving.data_sources import AccountInfo, ArmScore, DataSources, LivenessSession


@dataclass
class Source:
    """Counts calls, waits, and fails while ``down``."""

    name: str
    seconds: float = 0.0
    down: bool = False
    calls: int = 0
    in_flight_max: int = 0
    _in_flight: int = 0

    async def answer(self) -> None:
        self.calls += 1
        self._in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self._in_flight)
        try:
            await asyncio.sleep(self.seconds)
            if self.down:
                raise UnavailableError(self.name)
        finally:
            self._in_flight -= 1


@dataclass
class MemoryTable(Source):
    items: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def add(self, pk: str, sk: str, **attributes: Any) -> None:
        self.items[pk, sk] = {"PK": pk, "SK": sk, **attributes}

    async def get(self, pk: str, sk: str):
        await self.answer()
        return self.items.get((pk, sk))

    async def query(self, pk: str, sk_prefix: str = "", *, newest_first: bool = False, limit: int | None = None):
        await self.answer()
        keys = sorted(
            (key for key in self.items if key[0] == pk and key[1].startswith(sk_prefix)), reverse=newest_first
        )
        return [self.items[key] for key in keys[:limit]]

    async def put_revision(self, item: Mapping[str, Any], revision: int) -> bool:
        await self.answer()
        key = item["PK"], item["SK"]
        if self.items.get(key, {}).get("revision", 0) != revision:
            return False
        self.items[key] = {**item, "revision": revision + 1}
        return True


@dataclass
class MemoryArm(Source):
    scores: dict[str, ArmScore] = field(default_factory=dict)

    async def get(self, global_user_id: str):
        return (await self.get_many([global_user_id]))[0]

    async def get_many(self, global_user_ids: Sequence[str]):
        await self.answer()
        return [self.scores.get(name) for name in global_user_ids]


@dataclass
class MemoryOutbox(Source):
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def add(self, detail_type: str, detail: Mapping[str, Any]) -> str:
        await self.answer()
        self.events.append((detail_type, dict(detail)))
        return f"event-{len(self.events)}"


@dataclass
class MemoryAccounts(Source):
    known: dict[str, AccountInfo] = field(default_factory=dict)

    async def info(self, global_user_id: str):
        await self.answer()
        return self.known.get(global_user_id)


@dataclass
class MemoryLookup(Source):
    find: Callable[[Mapping[str, str]], Mapping[str, Any] | None] = lambda _: None
    asked: Counter = field(default_factory=Counter)

    async def fetch(self, parameters: Mapping[str, str]):
        self.asked[tuple(sorted(parameters.items()))] += 1
        await self.answer()
        return self.find(parameters)


@dataclass
class MemoryChecks(Source):
    sessions: dict[str, LivenessSession] = field(default_factory=dict)

    async def start(self, global_user_id: str, request_token: str):
        await self.answer()
        return self.sessions.setdefault(request_token, LivenessSession(f"session-{len(self.sessions)}", "CREATED"))


def memory_sources(**replaced: Any) -> DataSources:
    named: dict[str, Any] = {
        name: MemoryTable(name) for name in ("fan_identity", "account_fanscore", "verification", "demand")
    }
    named |= {
        "arm": MemoryArm("arm"),
        "outbox": MemoryOutbox("outbox"),
        "accounts": MemoryAccounts("accounts"),
        "identity_checks": MemoryChecks("identity_checks"),
    }
    for name in ("campaigns", "phone_scores", "eligibility", "event_details", "lnaa"):
        named[name] = MemoryLookup(name)
    return DataSources(**(named | replaced))


def all_of(sources: DataSources) -> list[Source]:
    return [value for value in vars(sources).values() if isinstance(value, Source)]


def fan(name: str = "user123", **more: Any) -> Identity:
    return Identity(CallerKind.USER, name, **more)


SERVICE = Identity(CallerKind.SERVICE, "resolver", scopes=frozenset({READ_ANY_SCOPE}))
API_KEY = Identity(CallerKind.API_KEY, "front-end", scopes=frozenset({READ_ANY_SCOPE}))
KEY_WITHOUT_SCOPE = Identity(CallerKind.API_KEY, "weather-widget")


def request(sources: DataSources | None = None, identity: Identity = SERVICE, **more: Any) -> Request:
    return Request(sources or memory_sources(), identity, **more)
