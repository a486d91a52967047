"""The pages in Chromium, from a real server over data sources in memory.

Where there is no Chromium its tests are skipped, by name; they fail instead where FAN_IDENTITY_REQUIRE_SERVICES has
``chromium`` or ``all`` (tests/services/conftest.py), so that CI cannot pass by skipping.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from fan_identity.domain.fanscore import DEFAULT_BOOSTS
from fan_identity.domain.keys import LATEST_SK, user_pk
from fan_identity.domain.messages import ScoringMessage
from fan_identity.domain.scorecard import REASON_CODES, ModelScore, Reason
from fan_identity.domain.scores import latest_item, score_item
from fan_identity.serving.arm import ArmLookup
from fan_identity.serving.data_sources import ArmScore, DataSources
from fan_identity.serving.graphql.endpoint import graphql_route
from fan_identity.serving.graphql.engine import Engine
from fan_identity.serving.http.app import Application, Parts
from fan_identity.serving.http.authentication import Authentication
from fan_identity.serving.http.development import DevelopmentIssuer
from fan_identity.serving.http.server import address_of, listen
from fan_identity.serving.pages.routes import console_routes, page_routes
from fan_identity.serving.settings import ServingSettings
from fan_identity.serving.tokens.verifier import TokenVerifier

from ..fakes import memory_sources

PATIENCE = 60.0
FIRST_MS = 1_718_355_600_123


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self.serves = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.serves.set()


@dataclass
class Site:
    """A server with the pages; ``sources`` may be filled, slowed and taken down."""

    address: str
    issuer: DevelopmentIssuer
    sources: Any

    @property
    def token(self) -> str:
        return self.issuer.token_of_service()

    def fan_token(self, user: str) -> str:
        return self.issuer.token_of_fan(user, "sub")

    def fill(self, user: str, *, scores: int = 12, every_ms: int = 47_000, **more: Any) -> list[dict[str, Any]]:
        """Scores of a fan who gets worse, as the workers store them; the oldest first."""
        items = [_item(user, number, scores, every_ms, **more) for number in range(scores)]
        for item in items:
            self.sources.fan_identity.items[item["PK"], item["SK"]] = item
        self.sources.fan_identity.items[user_pk(user), LATEST_SK] = latest_item(items[-1])
        self.sources.arm.scores[user] = ArmScore(
            items[-1]["armRisk"], FIRST_MS + (scores - 1) * every_ms, items[-1]["modelVersion"]
        )
        return items

    def ask(self, user: str) -> dict[str, Any]:
        """The API's own answer on a fan."""
        query = """query($id: ID!) { fan(globalUserId: $id) {
            armScore { score modelVersion stale } accountFanscore { score rawScore boosts { arm event model } }
            history { occurredAt accountScore armRisk bonScore baseScore otherPoints
                reasons { code value points } } } }"""
        answer = httpx.post(
            f"{self.address}/graphql",
            json={"query": query, "variables": {"id": user}},
            headers={"authorization": f"Bearer {self.token}"},
        ).json()
        assert "errors" not in answer
        return answer["data"]["fan"]


CODES = {
    "lastMinuteCount": (38.0, -5.74),
    "activitiesPerMinute": (21.4, -7.22),
    "gapRegularity": (0.412, -2.68),
    "assetShare": (0.0, -1.9),
    "loginShare": (0.125, 1.35),
    "nightShare": (None, -0.41),
}


def _item(user: str, number: int, of: int, every_ms: int, **more: Any) -> dict[str, Any]:
    parts = tuple(
        Reason(REASON_CODES[feature], feature, value, round(points * (number + 1) / of, 2))
        for feature, (value, points) in CODES.items()
    )
    hundredths = 7336 + sum(round(reason.points * 100) for reason in parts)
    score = ModelScore(
        hundredths / 100,
        1 + number * 5 // of,
        round(0.0042 + 0.97 * number / of, 4),
        73.36,
        tuple(sorted(parts, key=lambda reason: -abs(reason.points))),
        "embedded-scorecard-1",
    )
    message = ScoringMessage(
        user, f"activity-{number}", ("login", "search", "purchase")[number % 3], FIRST_MS + number * every_ms, "r", "w"
    )
    return score_item(message, score, "scoreUsers", FIRST_MS) | more


def _serve(
    folder: Path, sources: DataSources, engine: Engine, *, development: bool
) -> tuple[_Server, threading.Thread, Site]:
    issuer = DevelopmentIssuer.started(folder)
    settings = ServingSettings(**issuer.settings, token_user_claim="sub")

    async def open_parts() -> Parts:
        authentication = Authentication(TokenVerifier.of(settings))
        arm = ArmLookup.of(None, f"sqlite:///{folder}/fans.db", deadline_seconds=1, table=None)
        routes = [
            graphql_route(engine, sources, authentication, DEFAULT_BOOSTS),
            *page_routes(development=development),
            *console_routes(),
        ]
        return Parts(arm, authentication, {}, routes=routes, closers=(arm.close,))

    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(Application(open_parts), lifespan="on", log_config=None, ws="none")
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    assert server.serves.wait(PATIENCE)
    return server, thread, Site(address_of(listening), issuer, sources)


@pytest.fixture
def serve(tmp_path, production_engine, development_engine) -> Iterator[Callable[..., Site]]:
    """Starts a server; it ends with the test."""
    running: list[tuple[_Server, threading.Thread]] = []

    def start(*, development: bool = False) -> Site:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        engine = development_engine if development else production_engine
        server, thread, site = _serve(folder, memory_sources(), engine, development=development)
        running.append((server, thread))
        return site

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def site(serve) -> Site:
    """As in production."""
    return serve()


# Not for the session: while Playwright runs, this thread has a running event loop, and other tests' asyncio.run fails.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        missing = "no chromium on the PATH: install the system's package, such as apt-get install chromium"
        required = os.environ.get("FAN_IDENTITY_REQUIRE_SERVICES", "").replace(" ", "").split(",")
        if "chromium" in required or "all" in required:
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A tab, and everything the browser complained about in it: scripts' errors, violations of the policy, failures."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def open(self, url: str, token: str | None = None) -> Page:
        if token is not None:
            self.page.add_init_script(f"sessionStorage.setItem('fan-identity-token', {token!r})")
        self.page.goto(url)
        return self.page

    def take_complaints(self) -> list[str]:
        taken, self.complaints[:] = list(self.complaints), []
        return taken


@pytest.fixture
def tab(chromium) -> Iterator[Callable[..., Watched]]:
    """Opens a tab. When the test ends, nothing may be left that the browser complained about."""
    contexts: list[BrowserContext] = []
    opened: list[Watched] = []

    def open_tab(**options: Any) -> Watched:
        context = chromium.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        contexts.append(context)
        watched = Watched(context.new_page())

        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning", "assert"):
                watched.complaints.append(message.text)

        watched.page.on("console", on_console)
        watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        watched.page.on("dialog", lambda dialog: (watched.complaints.append("a dialog"), dialog.dismiss()))
        watched.page.on("request", lambda request: watched.requested.append(request.url))
        opened.append(watched)
        return watched

    yield open_tab
    left = [complaint for watched in opened for complaint in watched.complaints]
    for context in contexts:
        context.close()
    assert left == []
