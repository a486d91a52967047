"""The sandbox: what it answers, its faults, its counts, and the command that runs it."""

import http.client
import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fan_identity.domain.arai import arai_of
from fan_identity.domain.profile import FEATURES, Profile
from fan_identity.io.errors import UsageError
from fan_identity.io.model import EmbeddedModel
from fan_identity.serving.sandbox.faults import SERVICES
from fan_identity.serving.sandbox.people import features_of
from fan_identity.serving.sandbox.server import SandboxThread

PATIENCE = 60


@pytest.fixture
def sandbox() -> Iterator[str]:
    with SandboxThread() as thread:
        yield thread.address


def ask(
    address: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, Any]:
    """Status, JSON and headers of an answer; a body of bytes is sent as it is."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(address + path, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def request_object(user: str) -> dict[str, Any]:
    return {"globalUserId": user, "activity": {}, "activityType": "login", "features": features_of(user, 0)}


def test_made_up_users_have_every_feature_and_every_arm_level():
    scorecard = EmbeddedModel.packaged().scorecard
    levels: Counter[int] = Counter()
    for number in range(500):
        features = features_of(f"fan-{number}", 0)
        assert tuple(features) == FEATURES
        levels[scorecard.score(arai_of({"features": features}, 0).profile).arm_risk] += 1
    assert set(levels) == {1, 2, 3, 4, 5}
    assert levels[1] > levels[5], "more fans than bots"


def test_a_user_is_the_same_at_every_call_and_another_with_another_seed(sandbox: str):
    first = ask(sandbox, "GET", "/accounts/users/fan-1/activity")[1]
    assert first == ask(sandbox, "GET", "/accounts/users/fan-1/activity")[1]
    assert first["features"] == features_of("fan-1", 0) != features_of("fan-1", 1)
    assert first["globalUserId"] == "fan-1"


def test_unknown_users_are_404(sandbox: str):
    status, body, _ = ask(sandbox, "GET", "/accounts/users/unknown-7/activity")
    assert status == 404
    assert body["errors"] == [{"message": "unknown user", "errorType": "ClientError", "errorInfo": {"code": 404}}]


def test_the_model_is_the_packaged_one(sandbox: str):
    users = ["fan-1", "fan-2"]
    _, batch, _ = ask(sandbox, "POST", "/model/score", {"requests": [request_object(user) for user in users]})
    singles = [ask(sandbox, "POST", "/model/score", request_object(user))[1] for user in users]
    assert batch == {"scores": singles}
    scorecard = EmbeddedModel.packaged().scorecard
    for user, single in zip(users, singles, strict=True):
        score = scorecard.score(Profile(0, tuple(features_of(user, 0).values())))
        assert (single["accountScore"], single["armRisk"]) == (score.account_score, score.arm_risk)
        assert single["bonScore"] == score.bon_score
        total = single["baseScore"] + sum(reason["points"] for reason in single["reasons"])
        assert total == pytest.approx(single["accountScore"], abs=1e-6)
    assert ask(sandbox, "GET", "/health")[1]["modelVersion"] == singles[0]["modelVersion"]


def test_no_requests_have_no_scores(sandbox: str):
    assert ask(sandbox, "POST", "/model/score", {"requests": []})[1] == {"scores": []}


@pytest.mark.parametrize("item", [None, 3, {}, {"features": 3}, {"features": {"activityCount": "many"}}])
def test_what_cannot_be_scored_is_an_error_of_its_own(sandbox: str, item: Any):
    good = request_object("fan-1")
    _, batch, _ = ask(sandbox, "POST", "/model/score", {"requests": [good, item, good]})
    assert "error" in batch["scores"][1]
    assert batch["scores"][0] == batch["scores"][2]
    assert "armRisk" in batch["scores"][0]


def test_verifications_are_idempotent(sandbox: str):
    one = {"globalUserId": "f", "verificationId": "v", "status": "PASSED", "occurredAt": "2024-06-14T11:00:00.123Z"}
    key = {"Idempotency-Key": "k-1"}
    assert ask(sandbox, "POST", "/identity/verifications", one, key)[0] == 201
    assert ask(sandbox, "POST", "/identity/verifications", one, key)[0] == 200
    assert ask(sandbox, "POST", "/identity/verifications", {**one, "status": "FAILED"}, key)[0] == 422
    assert ask(sandbox, "GET", "/identity/verifications")[1] == {"verifications": [one]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/model/score", None, 405),
        ("POST", "/model/score", b"", 400),
        ("POST", "/model/score", b"[1]", 400),
        ("POST", "/model/score", b"\xff", 400),
        ("POST", "/model/score", b"[" * 100_000, 400),
        ("POST", "/model/score", {}, 422),
        ("POST", "/identity/verifications", {"globalUserId": "f"}, 400),
        ("POST", "/model/score", b" " * 17_000_000, 413),
        ("PUT", "/faults", {"redis": {}}, 400),
        ("PUT", "/faults", {"model": {"dealyMs": 1}}, 400),
        ("PUT", "/faults", {"model": {"rate": 2}}, 400),
        ("PUT", "/faults", {"model": {"status": 200}}, 400),
        ("PUT", "/faults", {"model": {"body": "seven"}}, 400),
        ("PUT", "/faults", {"model": {"delayMs": "1"}}, 400),
    ],
)
def test_errors_are_json(sandbox: str, method: str, path: str, body: Any, status: int):
    found, answer, headers = ask(sandbox, method, path, body)
    assert found == status
    assert headers["Content-Type"].startswith("application/json")
    assert answer["errors"][0]["errorInfo"] == {"code": status}


def test_faults_are_set_shown_counted_and_ended(sandbox: str):
    _, shown, _ = ask(sandbox, "PUT", "/faults", {"model": {"status": 503, "retryAfter": 7, "count": 2}})
    assert shown == {"model": {"status": 503, "retryAfter": 7, "count": 2, "left": 2}}
    status, _, headers = ask(sandbox, "POST", "/model/score", request_object("fan-1"))
    assert (status, headers["Retry-After"]) == (503, "7")
    ask(sandbox, "PUT", "/faults", {"accounts": {"status": 429}})
    assert ask(sandbox, "GET", "/accounts/users/fan-1/activity")[0] == 429
    assert ask(sandbox, "GET", "/faults")[1]["model"]["left"] == 1
    assert [ask(sandbox, "POST", "/model/score", request_object("fan-1"))[0] for _ in range(2)] == [503, 200]
    assert ask(sandbox, "DELETE", "/faults")[1] == {}
    assert ask(sandbox, "GET", "/accounts/users/fan-1/activity")[0] == 200
    calls = ask(sandbox, "GET", "/calls")[1]
    assert (calls["model"]["calls"], calls["model"]["faulty"]) == (3, 2)
    assert (calls["accounts"]["calls"], calls["accounts"]["faulty"]) == (2, 1)
    assert set(ask(sandbox, "DELETE", "/calls")[1]) == set(SERVICES)
    assert ask(sandbox, "GET", "/calls")[1]["model"]["calls"] == 0


def test_a_share_of_calls_suffers_the_same_ones_for_a_seed():
    def struck(seed: int) -> list[int]:
        with SandboxThread(seed=seed) as thread:
            ask(thread.address, "PUT", "/faults", {"model": {"status": 500, "rate": 0.3}})
            return [ask(thread.address, "POST", "/model/score", request_object("fan-1"))[0] for _ in range(100)]

    first = struck(1)
    assert first == struck(1) != struck(2)
    assert 15 <= first.count(500) <= 45


@pytest.mark.parametrize("body", ["nan", "zero", "six", "text"])
def test_a_spoilt_user_leaves_the_batch_whole(sandbox: str, body: str):
    requests = {"requests": [request_object(user) for user in ("fan-1", "fan-2")]}
    good = ask(sandbox, "POST", "/model/score", requests)[1]["scores"]
    ask(sandbox, "PUT", "/faults", {"model": {"body": body, "users": ["fan-2"]}})
    spoilt = ask(sandbox, "POST", "/model/score", requests)[1]["scores"]
    assert spoilt[0] == good[0]
    assert spoilt[1] != good[1]
    assert ask(sandbox, "POST", "/model/score", request_object("fan-1"))[1] == good[0]


def test_a_call_that_hangs_is_in_flight_until_the_caller_hangs_up(sandbox: str):
    ask(sandbox, "PUT", "/faults", {"accounts": {"hang": True}})
    host = sandbox.removeprefix("http://")
    hanging = [http.client.HTTPConnection(host, timeout=PATIENCE) for _ in range(3)]
    for connection in hanging:
        connection.request("GET", "/accounts/users/fan-1/activity")
    wait_for(lambda: ask(sandbox, "GET", "/calls")[1]["accounts"]["inFlight"] == 3)
    assert ask(sandbox, "DELETE", "/calls")[1]["accounts"] == {
        "calls": 0,
        "inFlight": 3,
        "inFlightMax": 3,
        "faulty": 0,
        "users": 0,
    }
    for connection in hanging:
        connection.close()
    wait_for(lambda: ask(sandbox, "GET", "/calls")[1]["accounts"]["inFlight"] == 0)


def wait_for(condition: Any) -> None:
    for _ in range(PATIENCE * 50):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it never came true")


def test_a_sandbox_with_a_hanging_call_still_ends():
    with SandboxThread() as thread:
        ask(thread.address, "PUT", "/faults", {"model": {"hang": True}})
        connection = http.client.HTTPConnection(thread.address.removeprefix("http://"), timeout=PATIENCE)
        connection.request("POST", "/model/score", json.dumps(request_object("fan-1")))
        wait_for(lambda: ask(thread.address, "GET", "/calls")[1]["model"]["inFlight"] == 1)
    assert "fan-identity-sandbox" not in [running.name for running in threading.enumerate()]
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        connection.getresponse()


def test_a_port_in_use_is_said(sandbox: str):
    port = int(sandbox.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"--port: {port} is in use"), SandboxThread(port=port):
        pass


COMMAND = [
    sys.executable,
    "-c",
    "import typer; from fan_identity.pipelines.cli.sandbox import sandbox; typer.run(sandbox)",
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_addresses_and_ends_cleanly(number: signal.Signals):
    child = subprocess.Popen(
        [*COMMAND, "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stderr is not None
        addresses = json.loads(child.stdout.readline())
        assert ask(addresses["accounts"], "GET", "/users/fan-1/activity")[0] == 200
        assert ask(addresses["model"].partition("?")[0], "POST", "", request_object("fan-1"))[0] == 200
        assert ask(addresses["identity"], "GET", "/verifications")[0] == 200
        assert ask(addresses["faults"], "GET", "")[1] == {}
        assert set(ask(addresses["calls"], "GET", "")[1]) == set(SERVICES)
        child.send_signal(number)
        out, err = child.stdout.read(), child.stderr.read()
        child.wait(PATIENCE)
    finally:
        child.kill()
    assert (out, err, child.returncode) == ("", "stopped\n", 0)


def test_for_people_it_prints_what_to_give_to_run():
    child = subprocess.Popen([*COMMAND, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        head = child.stdout.readline()
        assert head.startswith("Listening on http://127.0.0.1:")
        base = head.split()[2].rstrip(";")
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read()
        child.wait(PATIENCE)
    finally:
        child.kill()
    for line in (f"--model     '{base}/model/score?batch=64'", f"--accounts  '{base}/accounts'", "curl -X PUT"):
        assert line in rest


def test_help_has_examples():
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "Examples:" in done.stdout
    assert "fan-identity sandbox --port 8080" in done.stdout


def test_it_imports_no_beam():
    program = (
        "import sys, fan_identity.serving.sandbox.server, fan_identity.pipelines.cli.sandbox, "
        "fan_identity.io.table_arai, fan_identity.io.identity, fan_identity.io.flags; "
        "sys.exit('apache_beam' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
