"""Everything an activity causes can be followed, and nothing in a log says who it was."""

import contextlib
import json
import re
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

START_MS = 1_718_355_600_000
INFO = {"FAN_IDENTITY_LOG_LEVEL": "info"}
DEBUG = {"FAN_IDENTITY_LOG_LEVEL": "debug"}
REQUEST_ID = re.compile(r"[0-9a-f]{32}")

CANARIES = {
    "email": "canary.fan@example.org",
    "address": "203.0.113.77",
    "user": "canary-user-8c1f",
    "token": "eyJhbGciOiJub25lIn0.canary-token",
    "agent": "CanaryBrowser/6.6",
    "device": "canary-device-31",
}


def activity(activity_id: Any, user: Any = "canary-user-8c1f", **fields: Any) -> bytes:
    named = {"activityId": activity_id, "globalUserId": user, "activityType": "login", "occurredAt": START_MS}
    about = {
        "context": {
            "ipAddress": CANARIES["address"],
            "deviceId": CANARIES["device"],
            "userAgent": CANARIES["agent"],
        },
        "attributes": {"authorization": CANARIES["token"], CANARIES["token"]: 1, "mail": CANARIES["email"]},
        "memberId": CANARIES["email"],
    }
    return json.dumps({**named, **about, **fields}).encode()


GOOD = [activity("plain-1"), activity(CANARIES["email"]), activity("two\nlines"), activity("x", CANARIES["email"])]
BAD = [
    activity("wrong-time", occurredAt=CANARIES["email"]),
    activity("bad.fan@example.org", occurredAt="yesterday"),
    activity("bad\nid\x1b[31m", activityType=7),
    activity("wrong-user", user=[CANARIES["user"]]),
    activity("wrong-context", context={"ipAddress": [CANARIES["address"]]}),
    activity("wrong-attributes", attributes=CANARIES["token"]),
    activity("wrong-member", memberId={CANARIES["email"]: CANARIES["token"]}),
    activity([CANARIES["email"]]),
    activity("cut")[:-30],
    CANARIES["email"].encode() + b" " + CANARIES["token"].encode(),
]
REJECTED = [
    activity("old", occurredAt=0),
    activity("unknown", activityType=CANARIES["token"]),
    activity("blank", user=" "),
]


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.fixture
def source(tmp_path) -> Path:
    return write(tmp_path / "activities.jsonl", *GOOD, *BAD, *REJECTED)


def log_lines(text: str) -> list[dict[str, Any]]:
    """The log's lines; everything on standard error but our lines for people must be one."""
    lines = []
    for line in text.splitlines():
        if line.startswith("{"):
            lines.append(json.loads(line))
        else:
            assert re.search(r"is running; stop it|dead letters; look|^error: |^stopped: |work them off with", line), (
                line
            )
    return lines


def assert_correlated(line: dict[str, Any]) -> None:
    assert REQUEST_ID.fullmatch(line["requestId"])
    assert line["worker"]
    assert "activityId" in line
    assert line["level"] in ("DEBUG", "INFO", "WARNING", "ERROR")
    assert line["logger"].startswith("fan_identity")


def assert_no_canary(text: str) -> None:
    for name, canary in CANARIES.items():
        assert canary not in text, name
    for part in ("canary", "example.org", "bad\\nid", "\x1b"):
        assert part not in text


def test_every_message_names_its_request_worker_and_activity(store, cli, source):
    result = cli("run", "enqueueFromPurchaseStream", "--source", source, *store.flag, "--json", env=INFO)
    assert result.code == 1
    messages = store.messages()
    assert len(messages) == len(GOOD) == result.json["enqueued"]
    for message, line in zip(messages, GOOD, strict=True):
        assert REQUEST_ID.fullmatch(message["requestId"])
        assert message["worker"] == "enqueueFromPurchaseStream"
        assert message["activityId"] == json.loads(line)["activityId"]
        assert message["activity"] == json.loads(line)
    assert_no_canary(result.err)


def test_every_score_keeps_the_request_that_enqueued_it(store, cli, source):
    assert cli("run", "enqueueFromStream", "--source", source, *store.flag).code == 1
    requests = {message["activityId"]: message["requestId"] for message in store.messages()}
    result = cli("run", "scoreUsers", *store.flag, env=INFO)
    assert result.code == 0
    items = store.score_items()
    assert {item["activityId"]: item["requestId"] for item in items} == requests
    assert {item["worker"] for item in items} == {"scoreUsers"}
    for (body,) in store.query("SELECT body FROM items WHERE sk = 'LATEST'"):
        latest = json.loads(body)
        assert latest["requestId"] == requests[latest["activityId"]]
    assert_no_canary(result.err)


def test_batches_have_requests_of_their_own(store, cli, source):
    cli("run", "enqueueFromStream", "--source", source, *store.flag, env={"FAN_IDENTITY_BATCH_SIZE": "2"})
    assert len({message["requestId"] for message in store.messages()}) == len(GOOD) / 2


def test_every_dead_letter_and_its_log_line_name_request_worker_and_activity(store, cli, source):
    result = cli("score", source, *store.flag, "--json", env=INFO)
    assert result.code == 1
    listed = cli("dead-letters", "list", *store.flag, "--json")
    letters = {letter["deadLetterId"]: letter for letter in map(json.loads, listed.out.splitlines())}
    assert len(letters) == len(BAD)
    readable = {
        *("wrong-time", "bad.fan@example.org", "bad\nid\x1b[31m", "wrong-user", "wrong-context", "wrong-attributes"),
        "wrong-member",
    }
    assert {letter["activityId"] for letter in letters.values()} == {*readable, None}
    lines = [line for line in log_lines(result.err) if "deadLetterId" in line]
    assert sorted(line["deadLetterId"] for line in lines) == sorted(letters)
    for line in lines:
        assert_correlated(line)
        letter = letters[line["deadLetterId"]]
        assert REQUEST_ID.fullmatch(letter["requestId"])
        assert (line["requestId"], line["worker"]) == (letter["requestId"], letter["worker"])
        assert line["worker"] == "enqueueFromStream"
        if letter["activityId"] is None:
            assert line["activityId"] is None
        elif "\n" in letter["activityId"] or "@" in letter["activityId"]:
            assert re.fullmatch(r"sha256:[0-9a-f]{16}", line["activityId"])
        else:
            assert line["activityId"] == letter["activityId"]
    assert_no_canary(result.err)
    assert_no_canary("".join(letter["error"] for letter in letters.values()))


def test_a_message_given_up_on_names_the_request_that_enqueued_it(store, cli, tmp_path):
    source = write(tmp_path / "a.jsonl", activity("poison.fan@example.org"))
    assert cli("run", "enqueueFromStream", "--source", source, *store.flag).code == 0
    (message,) = store.messages()
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE message_groups SET receives = 10, received_to = head_seq")
    result = cli("run", "scoreUsers", *store.flag, "--json", env=INFO)
    assert result.code == 1
    assert result.json["dead_lettered.too_many_receives"] == 1
    (letter,) = map(json.loads, cli("dead-letters", "list", *store.flag, "--json").out.splitlines())
    assert (letter["requestId"], letter["worker"]) == (message["requestId"], "scoreUsers")
    assert letter["activityId"] == "poison.fan@example.org"
    (line,) = (line for line in log_lines(result.err) if "deadLetterId" in line)
    assert (line["requestId"], line["worker"]) == (message["requestId"], "scoreUsers")
    assert line["activityId"].startswith("sha256:")
    assert_no_canary(result.err)


@pytest.mark.parametrize("level", [INFO, DEBUG], ids=["info", "debug"])
def test_log_lines_are_json_and_name_nobody(store, cli, source, level, tmp_path):
    errors = [
        cli("score", source, *store.flag, "--json", env=level).err,
        cli("arm", CANARIES["user"], *store.flag, env=level).err,
        cli("show", CANARIES["email"], *store.flag, "--json", env=level).err,
        cli("dead-letters", "redrive", *store.flag, env=level).err,
        cli("run", "scoreUsers", *store.flag, env=level).err,
        cli("run", "enqueueFromStream", "--source", write(tmp_path / "none.jsonl", b"[]"), *store.flag, env=level).err,
    ]
    for text in errors:
        for line in log_lines(text):
            if line["logger"].startswith("fan_identity"):
                assert_correlated(line)
            assert {"requestId", "worker", "activityId"} <= set(line)
        assert_no_canary(text)


def test_a_stream_logs_json_that_names_nobody(store, cli, source):
    running = [
        cli.start("run", "enqueueFromStream", "--source", source, *store.flag, "--streaming", env=INFO),
        cli.start("run", "scoreUsers", *store.flag, "--streaming", env=INFO),
    ]
    # Older than a stream's horizon of seven days: counted rejections, while bad lines are dead letters.
    running[0].until(lambda: len(store.dead_letters()) == len(BAD), "the bad lines are dead letters")
    for one, worker, code in zip(running, ("enqueueFromStream", "scoreUsers"), (1, 0), strict=True):
        one.signal(signal.SIGTERM)
        result = one.wait()
        assert result.code == code
        lines = log_lines(result.err)
        assert "draining" in {line["message"] for line in lines}
        for line in lines:
            assert_correlated(line)
            assert line["worker"] == worker
        assert_no_canary(result.err)


def test_two_worker_processes_log_json_that_names_nobody(store, cli, source):
    result = cli(
        *("run", "enqueueFromStream", "--source", source, *store.flag, "--json", "--"),
        *("--direct_num_workers=2", "--direct_running_mode=multi_processing"),
        env=INFO,
    )
    assert result.code == 1
    lines = [line for line in log_lines(result.err) if "deadLetterId" in line]
    assert len(lines) == len(BAD)
    for line in lines:
        assert_correlated(line)
        assert line["worker"] == "enqueueFromStream"
    assert_no_canary(result.err)
