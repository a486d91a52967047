"""``fan-identity serve`` as a process of its own on a real Redis that is killed, frozen and restarted."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from fan_identity.domain.keys import arm_cache_key, user_pk
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

COMMAND = Path(sys.executable).with_name("fan-identity")
PATIENCE = 60.0
FANS = 50


class Served:
    """A server that was started, and a client of it."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        own = {name: text for name, text in os.environ.items() if not name.startswith("FAN_IDENTITY_")}
        self._log = folder / "serve.err"
        self.process = subprocess.Popen(
            [str(COMMAND), "serve", "--port", "0", "--development", "--json", *arguments],
            env={**own, **(env or {})},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self._log.open("ab"),
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.err
        told = json.loads(line)
        self.address: str = told["address"]
        self.token: str = told["tokens"]["service"]
        self.client = httpx.Client(
            base_url=self.address, headers={"Authorization": f"Bearer {self.token}"}, timeout=PATIENCE
        )

    @property
    def err(self) -> str:
        return self._log.read_text()

    def arm(self, user: str, **more: Any) -> Any:
        answer = self.client.get(f"/arm/{user}", **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*arguments: str, **options: Any) -> Served:
        started.append(Served(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def fan(number: int) -> str:
    return f"fan-{number}"


def risk(number: int) -> int:
    return number % 5 + 1


def fill(port: int, folder: Path) -> str:
    """Cache and table with the same fans; the store's address."""
    redis.Redis(port=port).mset(
        {
            arm_cache_key(fan(number)): json.dumps(
                {
                    "global_user_id": fan(number),
                    "arm_risk": risk(number),
                    "timestamp": 1_718_355_600_000,
                    "score_date": "2024-06-14",
                    "modelVersion": "m1",
                    "version": "1",
                }
            )
            for number in range(FANS)
        }
    )
    SqliteTable(SqliteStore(folder / "fans.db"), "fanIdentityTable").batch_put(
        [
            {
                "PK": user_pk(fan(number)),
                "SK": "LATEST",
                "armRisk": risk(number),
                "modelVersion": "m1",
                "occurredAt": "2024-06-14T09:00:00.000Z",
            }
            for number in range(FANS)
        ]
    )
    return f"sqlite:///{folder}/fans.db"


def test_scores_with_age_and_model_from_the_cache(private, serve, tmp_path):
    server = private("redis")
    served = serve("--cache", f"redis://127.0.0.1:{server.port}/0", "--store", fill(server.port, tmp_path))
    assert served.arm(fan(3)) == {"armScore": 4}
    assert served.arm("nobody") == {"armScore": None}
    detail = served.arm(fan(3), params={"detail": "true"})
    assert detail.pop("ageSeconds") > 0
    assert detail == {"armScore": 4, "modelVersion": "m1", "stale": False}
    many = served.client.post("/arm", json={"globalUserIds": [fan(1), "nobody", fan(2), fan(1)]})
    assert many.json() == {"armScores": [{"armScore": 2}, {"armScore": None}, {"armScore": 3}, {"armScore": 2}]}
    ready = served.client.get("/ready")
    assert ready.status_code == 200
    assert {"cache", "jwks", "fan_identity"} <= set(ready.json()["checked"])


async def ask_until(served: Served, done: asyncio.Event, told: Counter[str], wrong: list[Any]) -> None:
    async with httpx.AsyncClient(base_url=served.address, timeout=PATIENCE) as client:
        number = 0
        while not done.is_set():
            number = (number + 7) % FANS
            answer = await client.get(f"/arm/{fan(number)}", headers={"Authorization": f"Bearer {served.token}"})
            body = answer.json()
            # A Redis that came back empty says "unknown" in good faith until it is filled again.
            known = (risk(number),) if body.get("stale") else (risk(number), None)
            if answer.status_code != 200 or body["armScore"] not in known:
                wrong.append((answer.status_code, body))
            told["stale" if body.get("stale") else "fresh"] += 1


def test_with_redis_killed_frozen_and_back_every_answer_is_right_and_none_fails(private, serve, tmp_path, until):
    """0 unexpected 5xx with Redis down and the table up."""
    server = private("redis")
    store = fill(server.port, tmp_path)
    served = serve("--cache", f"redis://127.0.0.1:{server.port}/0", "--store", store)
    told: Counter[str] = Counter()
    wrong: list[Any] = []

    async def reaches(kind: str, more: int) -> None:
        wanted = told[kind] + more
        deadline = time.monotonic() + PATIENCE
        while told[kind] < wanted and not wrong:
            assert time.monotonic() < deadline, told
            await asyncio.sleep(0.01)

    async def story() -> None:
        done = asyncio.Event()
        askers = [asyncio.create_task(ask_until(served, done, told, wrong)) for _ in range(8)]
        await reaches("fresh", 50)
        await asyncio.to_thread(server.kill9)
        await reaches("stale", 100)
        ready = await asyncio.to_thread(served.client.get, "/ready")
        assert (ready.status_code, ready.json()["degraded"]) == (200, ["cache"])
        await asyncio.to_thread(server.start)
        fill(server.port, tmp_path)
        await reaches("fresh", 100)
        pid = redis.Redis(port=server.port).info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            await reaches("stale", 100)
        finally:
            os.kill(pid, signal.SIGCONT)
        await reaches("fresh", 100)
        done.set()
        await asyncio.gather(*askers)

    asyncio.run(story())
    assert wrong == []
    assert served.end() == 0
    log = served.err
    assert "the ARM cache is away" in log and "the ARM cache is back" in log
    assert fan(7) not in log and served.token not in log


def test_without_a_fallback_an_outage_is_an_error_and_never_null(private, serve, tmp_path):
    server = private("redis")
    store = fill(server.port, tmp_path)
    served = serve(
        "--cache", f"redis://127.0.0.1:{server.port}/0", "--store", store, env={"FAN_IDENTITY_ARM_FALLBACK": "false"}
    )
    assert served.arm("nobody") == {"armScore": None}
    server.kill9()
    for _ in range(10):
        answer = served.client.get("/arm/nobody")
        assert answer.status_code == 503
        assert answer.json()["errors"][0]["errorInfo"] == {"code": "UNAVAILABLE"}
        assert answer.headers["retry-after"] == "1"
    assert served.client.post("/arm", json={"globalUserIds": ["nobody"]}).status_code == 503
    assert served.client.get("/ready").status_code == 503
    assert served.client.get("/health").status_code == 200


def test_it_starts_while_redis_is_away_and_finds_it_later(private, serve, tmp_path, until):
    server = private("redis")
    store = fill(server.port, tmp_path)
    server.kill9()
    served = serve("--cache", f"redis://127.0.0.1:{server.port}/0", "--store", store)
    assert served.arm(fan(3)) == {"armScore": 4, "stale": True}
    assert served.client.get("/ready").json()["degraded"] == ["cache"]
    server.start()
    fill(server.port, tmp_path)
    until(lambda: served.arm(fan(3)) == {"armScore": 4}, "the cache is asked again")
    assert served.client.get("/ready").json()["degraded"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_after_the_request_under_way(private, serve, tmp_path, until, number):
    server = private("redis")
    store = fill(server.port, tmp_path)
    served = serve(
        "--cache", f"redis://127.0.0.1:{server.port}/0", "--store", store, env={"FAN_IDENTITY_ARM_DEADLINE": "30s"}
    )
    assert served.arm(fan(1)) == {"armScore": 2}
    pid = redis.Redis(port=server.port).info("server")["process_id"]

    async def story() -> bytes:
        port = int(served.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        os.kill(pid, signal.SIGSTOP)
        writer.write(f"GET /arm/{fan(2)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.token}\r\n\r\n".encode())
        await writer.drain()
        for _ in range(2):  # answered later than the other was read
            assert (await asyncio.to_thread(served.client.get, "/health")).status_code == 200
        served.process.send_signal(number)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reader.read(1)
        assert served.process.poll() is None
        os.kill(pid, signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            return await reader.read()

    try:
        assert asyncio.run(story()).endswith(b'{"armScore":3}')
    finally:
        os.kill(pid, signal.SIGCONT)
    assert served.process.wait(PATIENCE) == 0
    assert served.err.splitlines()[-1] == "stopped"


def test_several_processes_share_the_port_and_end_together(private, serve, tmp_path):
    server = private("redis")
    store = fill(server.port, tmp_path)
    served = serve("--cache", f"redis://127.0.0.1:{server.port}/0", "--store", store, "--workers", "2")
    for round_ in range(20):
        with httpx.Client(base_url=served.address, headers=served.client.headers) as client:
            assert client.get(f"/arm/{fan(round_)}").json() == {"armScore": risk(round_)}
    connections = redis.Redis(port=server.port).client_list()
    assert len(connections) >= 3  # one a process, and this one
    assert served.end() == 0


def test_an_api_key_is_limited_over_all_processes(private, serve, tmp_path):
    server = private("redis")
    store = fill(server.port, tmp_path)
    path = tmp_path / "keys"
    made = subprocess.run(
        [
            str(COMMAND),
            "api-keys",
            "create",
            "box-office",
            "--file",
            str(path),
            "--scope",
            "fanscore:read",
            "--per-minute",
            "5",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode == 2 and "No such command" in made.stderr:
        pytest.skip("no command api-keys yet")
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    served = serve("--cache", f"redis://127.0.0.1:{server.port}/0", "--store", store, "--api-keys", str(path))
    answers = [httpx.get(f"{served.address}/arm/{fan(1)}", headers={"X-Api-Key": key}) for _ in range(7)]
    assert [one.status_code for one in answers] == [200] * 5 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert httpx.get(f"{served.address}/arm/{fan(1)}", headers={"X-Api-Key": key + "x"}).status_code == 401
