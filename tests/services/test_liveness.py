"""Outages of every part, as checkLiveness sees them: alerted once within two rounds, cleared after.

Most parts are behind a Toxiproxy proxy of their own, which refuses connections or lets them hang; Kafka is a broker of
the test's own that is killed or stopped, since its clients go where the broker says it is.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from fan_identity.domain.liveness import RESOLVE, TRIGGER
from fan_identity.io.sqlite.store import SqliteStore

from ..webhook import Receiver

TOXIPROXY = "http://127.0.0.1:18474"
INTERVAL = 4.0
DEADLINE = "2s"
TOKEN = "default:development.unleash-test-token"


class Proxy:
    """A Toxiproxy proxy of the test's own, before ``upstream`` (host:port)."""

    def __init__(self, name: str, upstream: str) -> None:
        made = httpx.post(f"{TOXIPROXY}/proxies", json={"name": name, "listen": "127.0.0.1:0", "upstream": upstream})
        self._url = f"{TOXIPROXY}/proxies/{name}"
        self.host: str = made.raise_for_status().json()["listen"]
        self.address = f"http://{self.host}"

    def refuse(self) -> None:
        httpx.post(self._url, json={"enabled": False}).raise_for_status()

    def hang(self) -> None:
        for stream in ("upstream", "downstream"):
            toxic = {"name": stream, "type": "timeout", "stream": stream, "attributes": {"timeout": 0}}
            httpx.post(f"{self._url}/toxics", json=toxic).raise_for_status()

    def mend(self) -> None:
        for stream in ("upstream", "downstream"):
            httpx.delete(f"{self._url}/toxics/{stream}")
        httpx.post(self._url, json={"enabled": True}).raise_for_status()

    def close(self) -> None:
        httpx.delete(self._url)


@dataclass(frozen=True)
class Breakable:
    """A part and how it is broken and mended."""

    name: str
    do: Callable[[], None]
    undo: Callable[[], None]


@pytest.fixture
def proxies(server, unique) -> Iterator[Callable[[str], Proxy]]:
    """Makes proxies: ``proxies("127.0.0.1:16390")``."""
    server("toxiproxy")
    made: list[Proxy] = []

    def make(upstream: str) -> Proxy:
        made.append(Proxy(unique("liveness"), upstream))
        return made[-1]

    yield make
    for one in made:
        one.close()


def at(address: str, endpoint: str) -> str:
    """An address of the same thing at another endpoint."""
    return f"{address.partition('?')[0]}?endpoint={endpoint}"


def of_proxy(name: str, proxy: Proxy, how: str) -> Breakable:
    return Breakable(name, proxy.refuse if how == "refuses" else proxy.hang, proxy.mend)


@pytest.fixture
def parts(system, server, proxies, private, upstreams, tmp_path) -> Callable[[str], list[Breakable]]:
    """Every kind of part, each to be broken by itself, and the settings that name them."""
    for name in ("dynamodb", "elasticmq", "kinesalite", "redis", "pubsub", "unleash", "ministack"):
        server(name)

    def make(how: str) -> list[Breakable]:
        found: list[Breakable] = []

        def proxied(setting: str, upstream: str, address: Callable[[Proxy], str]) -> None:
            proxy = proxies(upstream)
            system.use(**{setting: address(proxy)})
            found.append(of_proxy(setting, proxy, how))

        dynamodb, sqs = "127.0.0.1:18000", "127.0.0.1:19324"
        sandbox = upstreams.address.removeprefix("http://")
        table = system.table(stream=True)
        proxied("operations", dynamodb, lambda proxy: at(system.table(), proxy.address))
        proxied("table", dynamodb, lambda proxy: at(table, proxy.address))
        proxied("queue", sqs, lambda proxy: at(system.queue(), proxy.address))
        proxied("on_demand_queue", "127.0.0.1:18085", lambda proxy: at(system.subscription(), proxy.host))
        proxied("cache", "127.0.0.1:16390", lambda proxy: f"redis://{proxy.host}/0")
        proxied("model", sandbox, lambda proxy: f"{proxy.address}/model/score?health=/health")
        proxied("accounts", sandbox, lambda proxy: f"{proxy.address}/accounts")
        proxied("identity", sandbox, lambda proxy: f"{proxy.address}/identity")
        proxied("campaigns", sandbox, lambda proxy: f"{proxy.address}/campaigns")
        proxied("flags", "127.0.0.1:14242", lambda proxy: f"unleash+{proxy.address}/api")
        proxied("events", "127.0.0.1:14566", lambda proxy: f"eventbridge://default?endpoint={proxy.address}")
        found.append(_store(system, tmp_path))
        return found

    return make


def _store(system: Any, folder: Path) -> Breakable:
    file, elsewhere = folder / "fans.db", folder / "elsewhere.db"
    SqliteStore(file).connection.close()
    system.use(dead_letters=f"sqlite:///{file}")
    return Breakable("dead_letters", lambda: file.rename(elsewhere), lambda: elsewhere.rename(file))


class Checking:
    """``checkLiveness --every`` as a process, and the receiver of its alerts."""

    def __init__(self, cli: Any, system: Any, receiver: Receiver) -> None:
        env = {
            **system.env,
            "FAN_IDENTITY_PROBE_DEADLINE": DEADLINE,
            "FAN_IDENTITY_ALERT_WEBHOOK": receiver.url,
            "FAN_IDENTITY_UNLEASH_TOKEN": TOKEN,
        }
        self.receiver = receiver
        self.running = cli.start("run", "checkLiveness", "--every", f"{INTERVAL:.0f}s", "--json", env=env)
        self.running.until(self.rounds, "the first round")
        assert self.rounds()[0]["down"] == 0, self.rounds()[0]

    def rounds(self) -> list[dict[str, Any]]:
        """What it found so far, a round a line."""
        lines = self.running._base.with_suffix(".out").read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def intervals_until(self, began: float, part: str, action: str) -> float:
        """Waits until a notice is there; how many intervals after ``began`` it came."""
        self.receiver.wait_for(
            lambda requests: [one for one in requests if one.action == (part, action)], f"{part}: no {action}"
        )
        (told,) = [one for one in self.receiver.requests if one.action == (part, action)]
        return (told.at - began) / INTERVAL

    def end(self) -> None:
        self.running.signal(signal.SIGINT)
        assert self.running.wait().code == 0, self.running.err


def outages(checking: Checking, parts: list[Breakable], how: str) -> None:
    """Breaks and mends one part after the other; prints how long its alert and its recovery took."""
    mended: dict[str, float] = {}
    alerted: dict[str, float] = {}
    for part in parts:
        began = time.monotonic()
        part.do()
        alerted[part.name] = checking.intervals_until(began, part.name, TRIGGER)
        part.undo()
        mended[part.name] = time.monotonic()
    sys.stdout.write(f"\n{how}: {INTERVAL:.0f} s interval, {DEADLINE} deadline; intervals until\n")
    for part in parts:
        cleared = checking.intervals_until(mended[part.name], part.name, RESOLVE)
        sys.stdout.write(f"  {part.name:<16} alerted {alerted[part.name]:4.2f}  cleared {cleared:4.2f}\n")
    sys.stdout.flush()
    expected = sorted((part.name, action) for part in parts for action in (TRIGGER, RESOLVE))
    assert sorted(checking.receiver.actions()) == expected, "one alert and one recovery an outage, and nothing else"
    late = {name: intervals for name, intervals in alerted.items() if intervals > 2}
    assert not late, f"alerted after more than two intervals: {late}"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_an_outage_of_each_part_is_alerted_within_two_intervals_and_cleared_after(cli, system, parts, how):
    broken = parts(how)
    with Receiver() as receiver:
        checking = Checking(cli, system, receiver)
        outages(checking, broken, how)
        checking.end()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_outage_of_each_kind_of_stream_is_alerted_within_two_intervals(
    cli, system, server, proxies, private, unique, how
):
    """A worker reads one source; so Kafka is one run, and Kinesis and a table's stream are two more."""
    server("kinesalite")
    server("dynamodb")
    broker = private("kafka")
    topic = unique("topic")
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{broker.port}", "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(60)
    pid = broker._run.alive(broker._server.run)

    def kill() -> None:
        if how == "killed":
            broker.kill9()
        else:
            os.kill(pid, signal.SIGSTOP)

    def revive() -> None:
        if how == "killed":
            broker.start()
        else:
            os.kill(pid, signal.SIGCONT)

    kinesis, streams = proxies("127.0.0.1:14570"), proxies("127.0.0.1:18000")
    kind = "refuses" if how == "killed" else "hangs"
    table = system.table(stream=True).replace("dynamodb://", "dynamodb-streams://")
    sources = {
        "kafka": (f"kafka://127.0.0.1:{broker.port}/{topic}", Breakable("source", kill, revive)),
        "kinesis": (at(system.stream(1), kinesis.address), of_proxy("source", kinesis, kind)),
        "dynamodb-streams": (at(table, streams.address), of_proxy("source", streams, kind)),
    }
    for name, (address, part) in sources.items():
        system.use(source=address)
        with Receiver() as receiver:
            checking = Checking(cli, system, receiver)
            outages(checking, [part], f"{name} {how}")
            checking.end()


def test_the_workers_flag_switches_it_off_and_a_flag_server_that_is_away_does_not(cli, system, server, proxies):
    """The name of the toggle is fixed; no other test of ours switches it."""
    server("unleash")
    admin = "http://127.0.0.1:14242/api/admin/projects/default/features"
    headers = {"Authorization": "*:*.unleash-admin-token"}
    name = "fan-identity.checkLiveness"
    proxy = proxies("127.0.0.1:14242")
    system.use(flags=f"unleash+{proxy.address}/api", flags_default="false")
    env = {**system.env, "FAN_IDENTITY_UNLEASH_TOKEN": TOKEN}
    made = httpx.post(admin, json={"name": name, "type": "release"}, headers=headers)
    assert made.status_code in (201, 409), made.text
    try:
        httpx.post(f"{admin}/{name}/environments/development/off", headers=headers).raise_for_status()
        off = cli("run", "checkLiveness", "--json", env=env)
        assert (off.code, off.json) == (0, {"worker": "checkLiveness", "skipped": 1})
    finally:
        httpx.delete(f"{admin}/{name}", headers=headers)
        httpx.delete(f"http://127.0.0.1:14242/api/admin/archive/{name}", headers=headers)
    proxy.refuse()
    away = cli("run", "checkLiveness", "--json", env=env)
    assert away.code == 3 and away.json["parts"][0]["part"] == "flags"


def test_a_redis_cluster_is_asked_too(cli, system, server):
    server("redis")
    system.use(cache="redis-cluster://127.0.0.1:16390")
    found = cli("run", "checkLiveness", "--json", env=system.env)
    assert found.code == 3 and "is no cluster; write redis://" in found.json["parts"][0]["problem"]
