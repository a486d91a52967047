"""Flags without a server: addresses, what is kept of the last known flags, and silence."""

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fan_identity.io.errors import UsageError
from fan_identity.io.flags import TOKEN_ENV, StaticFlags, UnleashFlags
from fan_identity.io.last_known_flags import LastKnownFlags

STATE_KEY = "/client/features"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_ENV, "default:development.s3cret")


def state(*features: dict[str, Any]) -> str:
    return json.dumps({"version": 2, "features": list(features)})


def feature(name: str, *, enabled: bool = True, **more: Any) -> dict[str, Any]:
    return {"name": name, "enabled": enabled, "strategies": [], "variants": [], **more}


def rollout(share: int, **more: Any) -> dict[str, Any]:
    parameters = {"rollout": str(share), "stickiness": "userId", "groupId": "g"}
    return {"name": "flexibleRollout", "parameters": parameters, "constraints": [], **more}


@pytest.mark.parametrize("enabled", [True, False])
def test_static_flags_are_the_same_for_all(enabled: bool):
    flags = StaticFlags(enabled)
    assert flags.is_enabled("scoreUsers") is flags.includes("scoreUsers", "fan-1") is enabled


@pytest.mark.parametrize(
    "address",
    [
        "http://host:4242/api",
        "unleash://host/api",
        "unleash+http://",
        "unleash+http:///api",
        "unleash+http://host:x/api",
        "unleash+http://user:hunter2@host/api",
        "unleash+http://ho st/api",
        "unleash+http://host/api?env=x",
        "unleash+http://host/api?refresh=0",
    ],
)
def test_wrong_addresses_are_said(address: str):
    with pytest.raises(UsageError, match="--flags: ") as error:
        UnleashFlags.of(address)
    assert "hunter2" not in str(error.value)


def test_without_a_token_the_variable_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(TOKEN_ENV)
    with pytest.raises(UsageError, match=TOKEN_ENV):
        UnleashFlags.of("unleash+http://host/api")


def test_flags_pickle_without_the_token():
    flags = UnleashFlags.of("unleash+https://host/api/?environment=production&refresh=5", default=False)
    assert (flags.url, flags.environment, flags.refresh_seconds) == ("https://host/api", "production", 5)
    assert b"s3cret" not in pickle.dumps(flags)
    assert pickle.loads(pickle.dumps(flags)) == flags


@pytest.mark.parametrize("garbage", ["", "<html>", "{}", '{"features": 3}', '{"features": [{}]}', "[" * 100_000])
def test_what_is_no_flags_does_not_replace_flags(tmp_path: Path, garbage: str):
    file = tmp_path / "folder" / "flags.json"
    known = LastKnownFlags(file)
    known.mset({"etag": "", "mlst": 1})
    known.set(STATE_KEY, state(feature("a"), feature("b", enabled=False)))
    known.set("etag", "1")
    known.set(STATE_KEY, garbage)
    known.set("etag", "2")
    assert known.enabled == {"a": True, "b": False}
    assert known.get("etag") == "1", "or the server would never send the flags again"
    assert known.exists(STATE_KEY)
    known.destroy()
    again = LastKnownFlags(file)
    assert again.bootstrapped
    assert again.enabled == known.enabled
    assert [path.name for path in file.parent.iterdir()] == ["flags.json"]


def test_a_file_that_is_no_flags_is_no_file(tmp_path: Path):
    file = tmp_path / "flags.json"
    file.write_bytes(b"\x80\x04pickle\xff")
    known = LastKnownFlags(file)
    assert (known.bootstrapped, known.enabled) == (False, {})


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    known = LastKnownFlags(tmp_path / "file" / "flags.json")
    known.set(STATE_KEY, state(feature("a")))
    known.set(STATE_KEY, state(feature("b")))
    assert known.enabled == {"b": True}
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("toggle", "answer"),
    [
        (feature("t", enabled=False), False),
        (feature("t", enabled=False, strategies=[{"name": "default"}]), False),
        (feature("t"), True),
        (feature("t", strategies=[{"name": "default"}]), True),
        (feature("t", strategies=[rollout(100)]), True),
        (feature("t", strategies=[rollout(30), rollout(100)]), True),
        (feature("t", strategies=[rollout(99)]), None),
        (feature("t", strategies=[rollout(100, constraints=[{"contextName": "userId"}])]), None),
        (feature("t", strategies=[rollout(100, segments=[1])]), None),
        (feature("t", strategies=[rollout(100, disabled=True)]), None),
        (feature("t", strategies=[{"name": "userWithId", "parameters": {"userIds": "a"}}]), None),
        (feature("t", strategies=[{"name": "default"}], dependencies=[{"feature": "u"}]), None),
    ],
)
def test_the_answer_is_known_for_everyone_only_where_no_user_can_differ(toggle: dict[str, Any], answer: bool | None):
    known = LastKnownFlags(None)
    known.set(STATE_KEY, state(toggle))
    assert known.for_everyone == {"t": answer}


class _Broken(ThreadingHTTPServer):
    """Answers 500 to all; ``enough`` is set once flags were asked for several times."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _BrokenHandler)
        self.asked = 0
        self.enough = threading.Event()


class _BrokenHandler(BaseHTTPRequestHandler):
    server: _Broken

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.asked >= 3:
            self.server.enough.set()
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def broken() -> Iterator[_Broken]:
    with _Broken() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


PROGRAM = """
import sys
from fan_identity.io.flags import UnleashFlags
from fan_identity.io.logs import configure_logging
configure_logging("warning", "w", "r")
flags = UnleashFlags.of(sys.argv[1], default=sys.argv[2] == "on")
print(flags.is_enabled("scoreUsers"), flags.includes("scoreUsers", "fan-1"), flush=True)
sys.stdin.readline()
flags.close()
"""


@pytest.mark.parametrize("default", ["on", "off"])
def test_an_outage_says_one_line_and_gives_the_default(broken: _Broken, default: str):
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, f"unleash+http://127.0.0.1:{broken.server_port}/api", default],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert broken.enough.wait(60)
        out, err = child.communicate("\n", timeout=60)
    finally:
        child.kill()
    assert out.split() == [str(default == "on")] * 2
    [line] = err.splitlines()
    assert json.loads(line)["logger"] == "fan_identity.io.flags"
    assert "s3cret" not in err
    assert child.returncode == 0
