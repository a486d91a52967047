"""An API over data sources in memory."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from fan_identity.domain.demand import DISCO_SK, EVENT_SK, event_pk
from fan_identity.domain.keys import ACTIVE_SK, BON_IMPORT_PK, LATEST_SK, MEMBER_SCORE_SK, bon_sk, member_pk, user_pk
from fan_identity.serving.context import Request
from fan_identity.serving.data_sources import AccountInfo, ArmScore
from fan_identity.serving.graphql.engine import Engine
from fan_identity.serving.graphql.executable import build_schema

from .fakes import SERVICE, memory_sources
from .issuer import (  # noqa: F401 - fixtures
    claims_fixture,
    clock,
    issuer,
    make_issuer,
    make_signer,
    make_verifier,
    next_signer,
    rsa_keys,
    signer,
    signers,
    verifier,
)


@dataclass
class Api:
    """Answers queries; ``sources`` may be filled, slowed and taken down."""

    engine: Engine
    sources: Any = field(default_factory=memory_sources)
    requests: list[Request] = field(default_factory=list)

    def post(self, body: Any, identity=SERVICE, **more: Any) -> tuple[int, Any]:
        def new_request():
            self.requests.append(Request(self.sources, identity, **more))
            return self.requests[-1]

        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return asyncio.run(self.engine.answer(text, new_request))

    def query(self, query: str, identity=SERVICE, variables: Any = None, **more: Any) -> Any:
        status, answer = self.post({"query": query, "variables": variables}, identity, **more)
        return {"status": status, **answer}

    def fill(self, user: str = "user123") -> None:
        """The reference's example: raw score 75, boosts 5, 4 and 3."""
        sources = self.sources
        sources.fan_identity.add(user_pk(user), LATEST_SK, accountScore=75, bonScore=0.9)
        sources.fan_identity.add(BON_IMPORT_PK, ACTIVE_SK, importVersion="2026-11-26")
        sources.fan_identity.add(user_pk(user), bon_sk("2026-11-26"), bonScore=0.02)
        sources.account_fanscore.add(member_pk("member-1"), MEMBER_SCORE_SK, score=60, rawScore=55)
        sources.demand.add(event_pk("evt456"), DISCO_SK, discoEventId="disco-1")
        sources.demand.add(event_pk("disco-1"), EVENT_SK, demandLevel="high")
        sources.arm.scores[user] = ArmScore(1, 1_718_355_600_000, "model-7")
        sources.accounts.known[user] = AccountInfo(user, "member-1", "fan@example.com")


@pytest.fixture(scope="session")
def production_engine():
    return Engine(build_schema())


@pytest.fixture(scope="session")
def development_engine():
    return Engine(build_schema(development=True), development=True)


@pytest.fixture
def api(production_engine) -> Api:
    return Api(production_engine)


@pytest.fixture
def filled(api) -> Api:
    api.fill()
    return api


@pytest.fixture
def development(development_engine) -> Api:
    return Api(development_engine)
