"""The console's API over a store, asked as a server would ask it."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fan_identity.domain.records import DeadLetter, dead_letter_id
from fan_identity.io.audit import AuditLog
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.serving.http.app import Application
from fan_identity.serving.http.development import DevelopmentIssuer
from fan_identity.serving.http.parts import open_parts
from fan_identity.serving.settings import load_serving_settings


class Console:
    """The application over a store, and tokens for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(folder / "fans.db")
        self.issuer = DevelopmentIssuer.started(folder)
        self.address = f"sqlite:///{folder}/fans.db"
        self.letters = SqliteDeadLetters(self.store)
        self.audit = AuditLog.of(self.address)

    def bearer(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    def signed(self, scope: str = "console:read console:act", **claims: str) -> dict[str, str]:
        """A service's token of these scopes; ``sub`` of another makes it a person's."""
        sign = self.issuer._signed
        return self.bearer(sign({"sub": "desk", "client_id": "desk", "scope": scope, **claims}))

    def letter(self, number: int = 0, **changed: Any) -> DeadLetter:
        fields: dict[str, Any] = {
            "worker": "enqueueFromStream",
            "reason": "malformed",
            "error": "JSON is malformed",
            "stack": "Traceback …",
            "attempts": 1,
            "request_id": "r1",
            "activity_id": f"a{number}",
            "source": "f.jsonl",
            "position": f"byte {number}",
            "payload": b"{" + str(number).encode(),
            **changed,
        }
        identity = (fields["worker"], fields["source"], fields["position"], fields["payload"])
        return DeadLetter(dead_letter_id=dead_letter_id(*identity), **fields)

    @asynccontextmanager
    async def client(self, **settings: Any):
        given = {"store": self.address, "upstream_deadline": "30s", "arm_deadline": "30s"}
        loaded = load_serving_settings(**{**given, **self.issuer.settings, **settings})
        app = Application(lambda: open_parts(loaded))
        await app.start()
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
                yield client
        finally:
            await app.stop()

    def ask(self, *requests: tuple[Any, ...], headers: dict[str, str] | None = None, **settings: Any) -> list[Any]:
        """Answers of (path) or (path, body), one after the other, as an operator."""

        async def asked() -> list[Any]:
            async with self.client(**settings) as client:
                return [await asked_one(client, headers or self.signed(), *request) for request in requests]

        return asyncio.run(asked())

    def get(self, path: str, **more: Any) -> Any:
        return self.ask((path,), **more)[0]

    def post(self, path: str, body: Any, **more: Any) -> Any:
        return self.ask((path, body), **more)[0]


async def asked_one(client: httpx.AsyncClient, headers: dict[str, str], path: str, body: Any = None) -> httpx.Response:
    if body is None:
        return await client.get(f"/console/api/{path}", headers=headers)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **headers}
    return await client.post(f"/console/api/{path}", content=content, headers=sent)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which has the API's shape and headers."""
    (error,) = answer.json()["errors"]
    assert set(error) == {"message", "errorType", "errorInfo"}
    assert error["errorType"] == str(answer.status_code)
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return answer.status_code, error["errorInfo"]["code"]


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path)
