"""Flags without a server: addresses, what is kept of the last known flags, and silence."""

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fan_identity.io.errors import UsageError
from fan_identity.io.flags import TOKEN_ENV, StaticFlags, UnleashFlags
from fan_identity.io.last_known_flags import MAX_STATE_BYTES, LastKnownFlags, NotFlagsError


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
        "unleash+http://host/api?refresh=50ms",
        "unleash+http://host/api?refresh=soon",
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


GARBAGE = {
    "nothing": b"",
    "HTML": b"<html><body>Bad gateway</body></html>",
    "half JSON": state(feature("fan-identity.a")).encode()[:-10],
    "a list": b"[]",
    "an object without flags": b"{}",
    "a number of flags": b'{"features": 3}',
    "a flag without a name": b'{"features": [{}]}',
    "a switch that is text": b'{"features": [{"name": "fan-identity.a", "enabled": "yes"}]}',
    "a name that is a number": b'{"features": [{"name": 1, "enabled": true}]}',
    "deep nesting": b"[" * 100_000,
    "no UTF-8": b'{"features": [{"name": "fan-identity.a\xff", "enabled": true}]}',
    "a pickle": b"\x80\x04pickle",
    "no flags": state().encode(),
    "another application's flags": state(feature("billing.invoices"), feature("fan-identit")).encode(),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_flags_does_not_replace_flags(tmp_path: Path, garbage: bytes):
    file = tmp_path / "folder" / "flags.json"
    known = LastKnownFlags(file)
    known.take(state(feature("fan-identity.a"), feature("fan-identity.b", enabled=False)).encode())
    with pytest.raises(NotFlagsError) as error:
        known.take(garbage)
    assert "billing" not in str(error.value)
    assert known.enabled == {"fan-identity.a": True, "fan-identity.b": False}
    again = LastKnownFlags(file)
    assert (again.enabled, again.for_everyone, again.text) == (known.enabled, known.for_everyone, known.text)
    assert [path.name for path in file.parent.iterdir()] == ["flags.json"]


def test_only_this_user_can_read_the_file(tmp_path: Path):
    file = tmp_path / "folder" / "flags.json"
    LastKnownFlags(file).take(state(feature("fan-identity.a")).encode())
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("garbage", [b"\x80\x04pickle\xff", b"", b"{", b"x" * (MAX_STATE_BYTES + 1)])
def test_a_file_that_is_no_flags_is_no_file(tmp_path: Path, garbage: bytes):
    file = tmp_path / "flags.json"
    file.write_bytes(garbage)
    known = LastKnownFlags(file)
    assert (known.text, known.enabled) == ("", {})
    known.take(state(feature("fan-identity.a")).encode())
    assert LastKnownFlags(file).enabled == {"fan-identity.a": True}, "and it is mended"


def test_a_file_others_could_have_written_is_not_read(tmp_path: Path):
    file = tmp_path / "flags.json"
    file.write_text(state(feature("fan-identity.a")))
    for mode in (0o666, 0o660):
        file.chmod(mode)
        assert LastKnownFlags(file).enabled == {}
    file.chmod(0o600)
    assert LastKnownFlags(file).enabled == {"fan-identity.a": True}


def test_a_link_is_neither_read_nor_written_through(tmp_path: Path):
    target, file = tmp_path / "precious", tmp_path / "flags.json"
    target.write_text(state(feature("fan-identity.planted")))
    file.symlink_to(target)
    known = LastKnownFlags(file)
    assert known.enabled == {}
    known.take(state(feature("fan-identity.a")).encode())
    assert target.read_text() == state(feature("fan-identity.planted"))
    assert not file.is_symlink()
    assert LastKnownFlags(file).enabled == {"fan-identity.a": True}


def test_a_pipe_in_the_files_place_stops_nobody(tmp_path: Path):
    os.mkfifo(tmp_path / "flags.json")
    assert LastKnownFlags(tmp_path / "flags.json").enabled == {}


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: Path):
    file = tmp_path / "flags.json"
    texts = [state(*(feature(f"fan-identity.{name}{number}") for number in range(300))).encode() for name in "abcd"]

    def write(text: bytes) -> None:
        known = LastKnownFlags(None)
        known._file = file
        for _ in range(20):
            known.text = ""
            known.take(text)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, texts))
    assert file.read_bytes() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["flags.json"]


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    known = LastKnownFlags(tmp_path / "file" / "flags.json")
    known.take(state(feature("fan-identity.a")).encode())
    known.take(state(feature("fan-identity.b")).encode())
    assert known.enabled == {"fan-identity.b": True}
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
    known.take(state(toggle).encode())
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
    assert json.loads(line)["logger"] == "fan_identity.io.flag_client"
    assert "s3cret" not in err
    assert child.returncode == 0
