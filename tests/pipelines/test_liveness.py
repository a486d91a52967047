"""``fan-identity run checkLiveness`` and its Lambda: exit codes, shapes, a clean stop, and what is never shown."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fan_identity.io.alerts import WEBHOOK_ENV
from fan_identity.io.sqlite.store import SqliteStore

from ..webhook import Receiver

COMMAND = ("run", "checkLiveness")
QUICK = {"FAN_IDENTITY_PROBE_DEADLINE": "4s"}


@pytest.fixture
def there(tmp_path: Path) -> dict[str, str]:
    """Settings that name one part, which is there."""
    SqliteStore(tmp_path / "fans.db").connection.close()
    return {"FAN_IDENTITY_STORE": f"sqlite:///{tmp_path}/fans.db", **QUICK}


def test_all_up_is_zero_and_something_down_three(cli, there):
    up = cli(*COMMAND, "--json", env=there)
    assert up.code == 0
    assert up.json["worker"] == "checkLiveness" and (up.json["up"], up.json["down"], up.json["told"]) == (1, 0, 0)
    away = {**there, "FAN_IDENTITY_CACHE": "redis://127.0.0.1:1/0"}
    down = cli(*COMMAND, "--json", env=away)
    assert down.code == 3
    assert [(part["part"], part["up"]) for part in down.json["parts"]] == [("store", True), ("cache", False)]
    people = cli(*COMMAND, env=away)
    assert people.code == 3
    assert "DOWN" in people.text and "redis://127.0.0.1:1/0 is out of reach" in people.text


@pytest.mark.parametrize(
    ("arguments", "env", "problem"),
    [
        ((), {}, "no part has an address"),
        ((), {"FAN_IDENTITY_TABLE": "redis://host"}, "--table: redis:// is not supported here"),
        (("--every", "soon"), {}, "--every: write a number and a unit"),
        (("--every", "10ms"), {}, "--every: a second at least"),
        ((), {"FAN_IDENTITY_PROBE_DEADLINE": "0s"}, "setting probe_deadline"),
        (
            (),
            {"FAN_IDENTITY_CACHE": "redis://h/0", WEBHOOK_ENV: "hooks.example.com/secret"},
            f"{WEBHOOK_ENV}: an address",
        ),
    ],
)
def test_a_wrong_setting_is_two_and_named(cli, arguments, env, problem):
    result = cli(*COMMAND, *arguments, env=env)
    assert result.code == 2
    assert problem in result.err and "secret" not in result.err


def test_app_name_selects_it_and_every_is_no_other_workers(cli, there):
    assert cli("run", "--json", env={**there, "APP_NAME": "checkLiveness"}).json["up"] == 1
    other = cli("run", "scoreUsers", "--every", "15s", env=there)
    assert other.code == 2 and "--every is checkLiveness's" in other.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_goes_on_until_it_is_told_to_stop_and_ends_in_order(cli, there, number):
    running = cli.start(*COMMAND, "--every", "1s", "--json", env=there)
    running.until(lambda: running._base.with_suffix(".out").read_bytes().count(b"\n") >= 3, "three rounds")
    running.signal(number)
    ended = running.wait()
    assert ended.code == 0, ended
    rounds = [json.loads(line) for line in ended.out.splitlines()]
    assert all(found["up"] == 1 and found["time"].endswith("Z") for found in rounds)
    assert ended.err.splitlines() == ["checkLiveness is running; stop it with Ctrl-C"]


def test_people_see_a_table_first_and_then_what_changes(cli, there, tmp_path):
    running = cli.start(*COMMAND, "--every", "1s", env=there)
    out = running._base.with_suffix(".out")
    running.until(lambda: "up" in out.read_text(), "the first round")
    (tmp_path / "fans.db").rename(tmp_path / "away.db")
    running.until(lambda: "store is DOWN: store" in out.read_text(), "the outage")
    (tmp_path / "away.db").rename(tmp_path / "fans.db")
    running.until(lambda: "store answers again" in out.read_text(), "the recovery")
    running.signal(signal.SIGINT)
    assert running.wait().code == 0


def test_prometheus_reads_which_part_is_down(cli, there):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**there, "FAN_IDENTITY_CACHE": "redis://127.0.0.1:1/0"}
    running = cli.start(*COMMAND, "--every", "1s", "--json", "--metrics-port", str(port), env=env)
    running.until(lambda: running._base.with_suffix(".out").read_bytes().count(b"\n") >= 1, "a round")
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    up = re.findall(r'^fan_identity_probe_up\{.*part="(\w+)".*\} (\S+)$', text, re.MULTILINE)
    assert dict(up) == {"store": "1.0", "cache": "0.0"}
    running.signal(signal.SIGINT)
    assert running.wait().code == 0


def test_a_process_ends_though_everything_it_asked_still_hangs(cli, there):
    with Receiver("hang") as hanging:
        address = f"http://127.0.0.1:{hanging.port}"
        services = {f"FAN_IDENTITY_{name}": f"{address}/{name}" for name in ("MODEL", "ACCOUNTS", "IDENTITY", "LNAA")}
        deadline = {"FAN_IDENTITY_PROBE_DEADLINE": "2s"}
        result = cli(*COMMAND, "--json", env={**there, **services, **deadline, WEBHOOK_ENV: hanging.url})
        assert result.code == 3
    problems = [part.get("problem") for part in result.json["parts"]]
    assert problems[0] is None and len(problems) == 5
    assert all("no answer in 2 s" in problem for problem in problems[1:])
    assert "not told yet" in result.err
    for secret in (hanging.url, "very-secret-path", str(hanging.port) + "/services"):
        assert secret not in result.err + result.text


def test_an_outage_is_told_and_its_end_over_runs_of_their_own(cli, there):
    with Receiver() as receiver, Receiver("503") as service:
        env = {**there, WEBHOOK_ENV: receiver.url, "FAN_IDENTITY_MODEL": f"http://127.0.0.1:{service.port}/score"}
        told = [cli(*COMMAND, "--json", env=env).json["told"] for _ in range(3)]
        service.mood = "ok"
        told += [cli(*COMMAND, "--json", env=env).json["told"] for _ in range(3)]
    assert told == [1, 0, 0, 0, 1, 0]
    assert receiver.actions() == [("model", "trigger"), ("model", "resolve")]


def test_a_checker_killed_while_the_webhook_has_its_notice_costs_one_repetition(cli, there):
    """kill -9 between the alert and its being noted: the next checker cannot know, and tells once more."""
    with Receiver("hang") as receiver, Receiver("503") as service:
        env = {**there, WEBHOOK_ENV: receiver.url, "FAN_IDENTITY_MODEL": f"http://127.0.0.1:{service.port}/score"}
        first = cli.start(*COMMAND, "--every", "1s", "--json", env=env)
        first.until(lambda: receiver.requests, "the alert")
        assert first.kill() == -9
        receiver.mood = "ok"
        second = cli.start(*COMMAND, "--every", "1s", "--json", env=env)
        second.until(lambda: second._base.with_suffix(".out").read_bytes().count(b"\n") >= 4, "four rounds")
        second.signal(signal.SIGINT)
        assert second.wait().code == 0
        assert receiver.actions() == [("model", "trigger")] * 2
        assert len({request.json["dedup_key"] for request in receiver.requests}) == 1


def test_the_lambda_answers_a_schedule(cli, there, tmp_path):
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}))
    answer = cli("lambda", "checkLiveness", event, env=there).json
    assert set(answer) == {"correlation", "data"} and answer["correlation"]["requestId"]
    assert (answer["data"]["up"], answer["data"]["down"]) == (1, 0)
    down = cli("lambda", "checkLiveness", event, env={**there, "FAN_IDENTITY_CACHE": "redis://127.0.0.1:1/0"})
    assert down.code == 0 and down.json["data"]["down"] == 1, "an outage is an answer, not an error"


def test_the_lambda_tells_cloudwatch_how_many_parts_are_down(cli, there, tmp_path):
    event = tmp_path / "event.json"
    event.write_text("{}")
    env = {**there, "FAN_IDENTITY_CACHE": "redis://127.0.0.1:1/0", "FAN_IDENTITY_EMF": "on"}
    line, _ = cli("lambda", "checkLiveness", event, env=env).text.splitlines()
    told = json.loads(line)
    assert (told["worker"], told["parts_up"], told["parts_down"], told["errors"]) == ("checkLiveness", 1, 1, 0)


@pytest.mark.parametrize(
    "program",
    [
        "from fan_identity.serving.lambda_entry import handler; handler({}, None)",
        "from fan_identity.pipelines.cli.main import app; app(['run', 'checkLiveness'], standalone_mode=False)",
    ],
    ids=["lambda", "command"],
)
def test_it_imports_what_its_parts_need_and_no_more(cli, there, program):
    listed = "{'apache_beam', 'boto3', 'confluent_kafka', 'redis', 'aiohttp', 'pyarrow', 'grpc', 'graphql'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}; print('heavy:', *sorted({listed} & set(sys.modules)))"],
        env={**cli.environment, **there, "APP_NAME": "checkLiveness"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1].strip() == "heavy:"
