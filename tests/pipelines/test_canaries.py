"""A fan's data goes through every part of the product, well and badly, and is told nowhere outside the stores.

Upstreams answer with what they were asked, in good and in bad answers. Looked at are the log at debug level, what
commands print, OTLP's traces and metrics, Prometheus, the embedded metric format, webhooks, summaries and reports.
Where a fan's data belongs (the stores, a dead letter's payload, the answer to who may see it) is not looked at.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from fan_identity.io.backends import open_queue
from fan_identity.io.ports import QueueEntry

from ..canaries import Canaries, Places
from ..conftest import CommandLine, Store
from ..otlp_receiver import OtlpReceiver, otlp_receiver
from ..webhook import Receiver

SOON = "timeout=1&deadline=1"
"""Options of an upstream's address: seconds."""


class Echo(ThreadingHTTPServer):
    """An upstream that says everything it was asked and knows of the fan, in good and bad answers by turns."""

    daemon_threads = True

    def __init__(self, canaries: Canaries) -> None:
        super().__init__(("127.0.0.1", 0), _EchoHandler)
        self.about = dict(canaries.all)
        self.statuses = cycle((400, 200, 404, 403, 422, 500, 200))
        self.asked = 0
        self.address = f"http://127.0.0.1:{self.server_port}"


class _EchoHandler(BaseHTTPRequestHandler):
    server: Echo

    def do_POST(self) -> None:
        self.server.asked += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        about = {"path": self.path, "headers": str(self.headers), "body": body, **self.server.about}
        answer = json.dumps({"message": f"failed for {about}", "error": about, **about}).encode()
        # The reason too: it is the peer's text, and clients put it into their errors.
        self.send_response(next(self.server.statuses), f"Because of {self.server.about['email']}")
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Fan", self.server.about["email"])
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def canaries() -> Canaries:
    return Canaries.planted()


@pytest.fixture
def echo(canaries: Canaries) -> Iterator[Echo]:
    with Echo(canaries) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def collector() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture
def places(canaries: Canaries) -> Places:
    return Places(canaries)


@pytest.fixture
def watched(collector: OtlpReceiver, echo: Echo, canaries: Canaries) -> dict[str, str]:
    """An environment in which everything that can be told is told."""
    return {
        "FAN_IDENTITY_LOG_LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_TRACES_SAMPLER": "always_on",
        "FAN_IDENTITY_EMF": "on",
        "FAN_IDENTITY_MODEL_TOKEN": canaries.secret,
        "FAN_IDENTITY_IDENTITY_TOKEN": canaries.secret,
        "FAN_IDENTITY_VISIBILITY_TIMEOUT": "1s",
    }


def add_telemetry(places: Places, collector: OtlpReceiver) -> None:
    for body in collector.bodies:
        places.add("OTLP", body)


def bad_activities(canaries: Canaries) -> list[bytes]:
    """What cannot be read, in every way, with the fan in it."""
    return [
        canaries.activity(90, occurredAt=canaries.email),
        canaries.activity(91, activityType=[canaries.token]),
        canaries.activity(92, globalUserId={canaries.user: canaries.phone}),
        canaries.activity(93, context={"ipAddress": [canaries.ip]}),
        canaries.activity(94, attributes=canaries.token),
        canaries.activity(95)[:-30],
        f"{canaries.email} {canaries.token} {canaries.street}".encode(),
        json.dumps([canaries.email, canaries.phone]).encode(),
    ]


@pytest.fixture
def source(canaries: Canaries, tmp_path: Path) -> Path:
    rejected = [canaries.activity(80, activityType=canaries.phone), canaries.activity(81, globalUserId=" ")]
    lines = [*(canaries.activity(number) for number in range(5)), *bad_activities(canaries), *rejected]
    path = tmp_path / "activities.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def job_files(folder: Path, job: str) -> tuple[str, ...]:
    """Options that let a job write its summary and its report."""
    return "--summary", str(folder / f"{job}.json"), "--report", str(folder / f"{job}.html")


def send(store: Store, queue: str, *bodies: bytes) -> None:
    """Puts messages into a queue of the store."""
    opened = open_queue(store.address, "store", queue, 1_000)
    opened.send([QueueEntry(f"g{number}", f"{queue}-{number}", body) for number, body in enumerate(bodies)])


@pytest.mark.slow
def test_workers_tell_nothing(
    cli: CommandLine,
    store: Store,
    source: Path,
    echo: Echo,
    watched: dict[str, str],
    collector: OtlpReceiver,
    places: Places,
    canaries: Canaries,
    tmp_path: Path,
):
    away = watched | {
        "FAN_IDENTITY_MODEL": f"{echo.address}/model?batch=2&{SOON}",
        "FAN_IDENTITY_IDENTITY": f"{echo.address}/identity?{SOON}",
    }
    now = time.time_ns() // 1_000_000
    send(
        store,
        "rescoreQueue",
        json.dumps({"users": [canaries.user, canaries.email], "rescoreId": "r1"}).encode(),
        json.dumps({"users": {canaries.email: canaries.phone}}).encode(),
        json.dumps({"modelVersion": canaries.token, "cluster": [canaries.street]}).encode(),
        canaries.email.encode(),
    )
    idv = {
        "verificationId": "v1",
        "globalUserId": canaries.user,
        "status": "PASSED",
        "occurredAt": now,
    }
    events = [idv, idv | {"status": canaries.phone}, idv | {"provider": [canaries.street]}, {"detail": canaries.all}]
    send(store, "identityEventQueue", *(json.dumps(event).encode() for event in events), canaries.token.encode())
    fans = tmp_path / "fans.txt"
    fans.write_text(f"{canaries.user}\n{canaries.email}\n")
    backfill = ("backfill", "enqueueFromStream", "--source", source, *job_files(tmp_path, "backfill"))
    for arguments, environment in (
        (("run", "enqueueFromStream", "--source", source), watched),
        (("run", "scoreUsers"), away),
        (("run", "scoreUsers"), watched),
        (("run", "processRescoreEvents"), away),
        (("run", "handleEvent"), away),
        (("dead-letters", "list"), watched),
        (("dead-letters", "redrive", *job_files(tmp_path, "redrive")), watched),
        (("rescore", "--users", fans, "--rescore-id", "r2", *job_files(tmp_path, "rescore")), away),
        ((*backfill, "--score-with", "scoreUsers"), watched),
        (("arm", canaries.email), watched),
        (("show", canaries.email), watched),
    ):
        result = cli(*arguments, *store.flag, "--json", env=environment)
        what = " ".join(map(str, arguments[:2]))
        assert result.code in (0, 1, 2, 3), result
        if arguments[0] not in ("arm", "show"):
            places.add(f"{what}: printed", result.out or b"nothing")
        places.add(f"{what}: log", result.err or "nothing")
    for job in ("redrive", "rescore", "backfill"):
        for file in job_files(tmp_path, job)[1::2]:
            places.add(file, Path(file).read_text())
    assert echo.asked > 5
    assert store.dead_letters(), "there was something to tell"
    add_telemetry(places, collector)
    assert collector.spans(), "spans were told"
    assert list(collector.metrics()), "metrics were told"
    places.assert_clean()


def test_streams_tell_nothing(
    cli: CommandLine,
    store: Store,
    source: Path,
    watched: dict[str, str],
    collector: OtlpReceiver,
    places: Places,
):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = cli.start(
        "run", "enqueueFromStream", "--source", source, *store.flag, "--streaming", "--metrics-port", port, env=watched
    )
    running.until(lambda: len(store.dead_letters()) >= 8, "what cannot be read is given up on")
    places.add("Prometheus", httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().content)
    running.signal(15)
    places.add("stream: log", running.wait().err)
    add_telemetry(places, collector)
    places.assert_clean()


def test_imports_tell_nothing(
    cli: CommandLine,
    store: Store,
    source: Path,
    watched: dict[str, str],
    collector: OtlpReceiver,
    places: Places,
    canaries: Canaries,
    tmp_path: Path,
):
    assert cli("score", source, *store.flag, env=watched).code == 1
    file = tmp_path / "bon.csv"
    rows = [(canaries.user, "0.5"), (canaries.email, canaries.phone), ("", canaries.token), (canaries.street, "7")]
    file.write_text("globalUserId,score\n" + "".join(f'"{user}","{score}"\n' for user, score in rows))
    for number, more in enumerate(((), ("--max-bad", "1", "--max-unknown", "1"), ("--format", "parquet"))):
        report, summary = tmp_path / f"{number}.html", tmp_path / f"{number}.json"
        options = ("--json", "--report", report, "--summary", summary, *store.flag)
        result = cli("imports", "start", "bot-or-not", file, *more, *options, env=watched)
        places.add("imports: printed", result.out or b"nothing")
        places.add("imports: log", result.err or "nothing")
        for written in (report, summary):
            if written.exists():
                places.add(written.name, written.read_text())
    places.add("imports list", cli("imports", "list", *store.flag, env=watched).out)
    add_telemetry(places, collector)
    places.assert_clean()


@pytest.mark.slow
def test_the_lambda_tells_nothing(
    cli: CommandLine,
    store: Store,
    watched: dict[str, str],
    echo: Echo,
    places: Places,
    canaries: Canaries,
    tmp_path: Path,
):
    bodies = [canaries.activity(1), *bad_activities(canaries)]
    attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": "1718355600000", "MessageGroupId": "g"}
    records = [
        {
            "messageId": f"m{number}",
            "body": body.decode(errors="replace"),
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-west-1:1:q.fifo",
            "attributes": attributes,
        }
        for number, body in enumerate(bodies)
    ]
    event = tmp_path / "event.json"
    environment = watched | {"FAN_IDENTITY_MODEL": f"{echo.address}/model?{SOON}"}
    for worker in ("enqueueFromStream", "scoreUsers", "processRescoreEvents", "handleEvent"):
        for told in ({"Records": records}, {"Records": canaries.email}, {canaries.email: dict(canaries.all)}):
            event.write_text(json.dumps(told))
            result = cli("lambda", worker, event, *store.flag, env=environment)
            places.add(f"lambda {worker}: printed, and metrics", result.out or b"nothing")
            places.add(f"lambda {worker}: log", result.err or "nothing")
    places.assert_clean()


def test_probes_tell_nothing(
    cli: CommandLine, store: Store, watched: dict[str, str], echo: Echo, places: Places, canaries: Canaries
):
    with Receiver() as webhook:
        environment = watched | {
            "FAN_IDENTITY_STORE": store.address,
            "FAN_IDENTITY_MODEL": f"{echo.address}/model",
            "FAN_IDENTITY_IDENTITY": f"{echo.address}/identity",
            "FAN_IDENTITY_CACHE": f"redis://fan:{canaries.secret}@127.0.0.1:9/0",
            "FAN_IDENTITY_ALERT_WEBHOOK": webhook.url,
            "FAN_IDENTITY_ALERT_SECRET": canaries.secret,
            "FAN_IDENTITY_PROBE_DEADLINE": "1s",
        }
        for arguments in (("run", "checkLiveness"), ("doctor",)):
            result = cli(*arguments, "--json", env=environment)
            assert result.code in (0, 1, 3), result
            places.add(f"{arguments[-1]}: printed", result.out)
            places.add(f"{arguments[-1]}: log", result.err or "nothing")
        for told in webhook.requests:
            places.add("webhook", told.body)
            places.add("webhook's headers", str(dict(told.headers)))
        assert webhook.requests
    places.assert_clean()


ASKED = (
    "query ($u: ID!) { getArmScore(globalUserId: $u) }",
    "query ($u: ID!) { fan(globalUserId: $u) { armScore { score } history { activityId } } }",
    "query ($u: ID!) { api { accountFanscore(globalUserId: $u) { score } accountInfo { email } } }",
    "query ($u: ID!) { api { phoneScore(phoneNumber: $u) { score } } }",
    'mutation ($u: ID!) { upsertEntry(input: {eventId: "e", email: $u}) { status } }',
    "mutation ($u: ID!) { checkLiveness(globalUserId: $u) { status } }",
    "query ($u: ID!) { nothing(u: $u) }",
)


def test_the_api_and_the_console_tell_nothing(
    cli: CommandLine,
    store: Store,
    source: Path,
    watched: dict[str, str],
    collector: OtlpReceiver,
    echo: Echo,
    places: Places,
    canaries: Canaries,
):
    assert cli("score", source, *store.flag, env=watched).code == 1
    upstreams = ("account_info", "campaigns", "phone_scores", "eligibility", "event_details", "lnaa", "identity_checks")
    environment = watched | {f"FAN_IDENTITY_{name.upper()}": f"{echo.address}/{name}?{SOON}" for name in upstreams}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ("serve", *store.flag, "--development", "--fan", canaries.user, "--port", "0", "--json")
    running = cli.start(*command, "--metrics-port", port, env=environment)
    printed = running.until(lambda: running.out, "it serves")
    told = json.loads(printed.splitlines()[0])
    with httpx.Client(base_url=told["address"], timeout=60) as http:
        for token in (*told["tokens"].values(), canaries.token, canaries.secret):
            headers = {
                "Authorization": f"Bearer {token}",
                "X-Forwarded-For": canaries.ip,
                "User-Agent": canaries.device,
            }
            for query in ASKED:
                for user in (canaries.user, canaries.email, canaries.phone, {"a": canaries.street}):
                    http.post("/graphql", json={"query": query, "variables": {"u": user}}, headers=headers)
            http.post("/graphql", json={"query": f"{{ {canaries.email} }}", canaries.token: 1}, headers=headers)
            for path in (
                "/arm/",
                "/",
                "/console/api/",
                "/ready?x=",
                "/arm?token=",
                "/console/api/dead-letters?activity=",
            ):
                http.get(path + quote(canaries.email, safe=""), headers=headers)
            http.post(
                "/arm", json={"globalUserIds": [canaries.user, canaries.email, {"a": canaries.phone}]}, headers=headers
            )
            http.post("/console/api/dead-letters/redrive", json={"ids": [canaries.email]}, headers=headers)
        operator = {"Authorization": f"Bearer {told['tokens']['operator']}"}
        for path in ("me", "flow", "dead-letters/summary", "dead-letters", "flags", "imports", "audit"):
            answer = http.get(f"/console/api/{path}", headers=operator)
            assert answer.status_code == 200, (path, answer.text)
            places.add(f"console: {path}", answer.content)
        letter = http.get("/console/api/dead-letters", headers=operator).json()["letters"][0]["id"]
        places.add("console: a letter", http.get(f"/console/api/dead-letters/{letter}", headers=operator).content)
        revealed = http.post(f"/console/api/dead-letters/{letter}/reveal", headers=operator, json={})
        assert canaries.leaks(revealed.content), "the payload is shown where it is asked for"
        places.add("console: the audit log after it", http.get("/console/api/audit", headers=operator).content)
        places.add("console page", http.get("/console").content)
    places.add("Prometheus", httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().content)
    assert echo.asked
    running.signal(15)
    places.add("serve: log", running.wait().err)
    places.add("audit list", cli("audit", "list", *store.flag, env=watched).out)
    add_telemetry(places, collector)
    assert collector.spans()
    places.assert_clean()


def test_a_leak_would_be_found(
    cli: CommandLine, store: Store, source: Path, watched: dict[str, str], collector: OtlpReceiver, canaries: Canaries
):
    """One on purpose, in what OpenTelemetry is told of the process."""
    leaky = watched | {"OTEL_SERVICE_NAME": f"worker of {canaries.email}"}
    told = Places(canaries)
    assert cli("run", "enqueueFromStream", "--source", source, *store.flag, env=leaky).code == 1
    add_telemetry(told, collector)
    with pytest.raises(AssertionError, match="OTLP"):
        told.assert_clean()
