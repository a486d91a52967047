"""Flags without a server: addresses, what is kept of the last known flags, and silence."""

import contextlib
import gzip
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
        (feature("t", enabled=False), True),
        (feature("t", enabled=False, strategies=[{"name": "default"}]), True),
        (feature("t", enabled=False, strategies=[rollout(99)]), None),
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
    assert out.split() == [str(default == "on"), "True"], "what was taken up ends"
    [line] = err.splitlines()
    assert json.loads(line)["logger"] == "fan_identity.io.flag_client"
    assert "s3cret" not in err
    assert child.returncode == 0


class Moody(ThreadingHTTPServer):
    """A flag server that answers as its mood is: flags, or rubbish of a kind. Counts what it was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MoodyHandler)
        self.mood = "flags"
        self.asked = 0
        self.features = [feature("fan-identity.a", enabled=False), feature("fan-identity.b", strategies=[rollout(50)])]
        self.ended = threading.Event()
        self.elsewhere = 0
        self.if_none_match: str | None = None

    def asked_again(self, times: int) -> None:
        """Waits until it was asked so many times more."""
        enough, deadline = self.asked + times, time.monotonic() + 60
        while self.asked < enough:
            assert time.monotonic() < deadline, "it is asked no more"
            time.sleep(0.005)


def refused(**wrong: Any) -> bytes:
    """Flags of ours that the engine cannot use, with the opposite of what was known."""
    toggles = [feature("fan-identity.a"), feature("fan-identity.b", enabled=False)]
    return state(*toggles, {**feature("fan-identity.c"), **wrong}).encode()


MIB = 1 << 20
REFUSED = {
    "a flag without strategies": refused().replace(b', "strategies": []', b""),
    "a constraint that is a number": refused(strategies=[{"name": "default", "constraints": [3]}]),
    "a segment that is text": refused(strategies=[{"name": "default", "segments": ["s"]}]),
    "variants that are a number": refused(variants=3),
    "flags of no version": refused().replace(b'"version": 2, ', b""),
}
BODIES = {
    **GARBAGE,
    **REFUSED,
    "10 MB of JSON": b'{"features": [' + b" " * (10 * MIB) + b"]}",
    "10 MB of a page": b"<p>" + b"x" * (10 * MIB),
}
MOODS = (
    *BODIES,
    "401",
    "403",
    "404",
    "500",
    "503",
    "204",
    "redirect",
    "hang",
    "drip",
    "drip of headers",
    "reset",
    "gzip",
)


class _MoodyHandler(BaseHTTPRequestHandler):
    server: Moody
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(202, b"")

    def do_GET(self) -> None:
        server = self.server
        server.asked += 1
        assert self.headers["Authorization"] == "default:development.s3cret"
        if self.path == "/elsewhere":
            server.elsewhere += 1
        mood, server.if_none_match = server.mood, self.headers["If-None-Match"]
        if mood in BODIES:
            self._answer(200, BODIES[mood], ETag='"of rubbish"')
        elif mood.isdigit():
            self._answer(int(mood), b"" if mood == "204" else state(feature("fan-identity.a")).encode())
        elif mood == "redirect":
            self._answer(307, b"", Location="/elsewhere")
        elif mood == "gzip":
            self._answer(200, gzip.compress(state(feature("fan-identity.a")).encode()), **{"Content-Encoding": "gzip"})
        elif mood == "flags":
            self._answer(200, state(*server.features).encode(), ETag=f'"flags of {len(server.features)}"')
        elif mood == "reset":
            self.close_connection = True
        else:
            self.close_connection = True
            if mood == "drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            elif mood == "drip of headers":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with contextlib.suppress(OSError):
                while not server.ended.wait(0.05):
                    self.wfile.write(b"" if mood == "hang" else b"x")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def moody() -> Iterator[Moody]:
    with Moody() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def flags_of(moody: Moody, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., UnleashFlags]]:
    monkeypatch.setattr("fan_identity.io.flag_client.DEADLINE_SECONDS", 2.0)
    made: list[UnleashFlags] = []

    def make(**options: Any) -> UnleashFlags:
        address = f"unleash+http://127.0.0.1:{moody.server_port}/api?refresh=100ms"
        made.append(UnleashFlags.of(address, **options))
        return made[-1]

    yield make
    for flags in made:
        flags.close()


def memory() -> int:
    """What this process holds, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("mood", MOODS)
def test_rubbish_changes_nothing_and_is_said_once(
    moody: Moody, flags_of: Callable[..., UnleashFlags], caplog: pytest.LogCaptureFixture, mood: str, tmp_path: Path
):
    flags = flags_of(cache_folder=tmp_path)
    users = [f"fan-{number}" for number in range(50)]

    def answers() -> list[bool]:
        return [flags.is_enabled("a"), flags.is_enabled("b"), *(flags.includes("b", user) for user in users)]

    known = answers()
    assert not known[0] and known[1] and 10 < sum(known[2:]) < 40
    [file] = tmp_path.iterdir()
    kept = file.read_bytes()
    moody.mood = mood
    moody.asked_again(3)
    assert answers() == known
    assert file.read_bytes() == kept
    flags.close()  # as after a restart
    assert answers() == known
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2, "one a client and minute"
    assert not any(word in text for text in told for word in ("s3cret", "127.0.0.1", "billing", "html", "page"))
    assert moody.elsewhere == 0, "the token would go with a redirect"
    moody.features = [*moody.features, feature("fan-identity.new", enabled=False)]
    moody.mood = "flags"
    deadline = time.monotonic() + 60
    while flags.is_enabled("new"):
        assert time.monotonic() < deadline, "it never recovers"
        time.sleep(0.01)


@pytest.mark.parametrize("rubbish", REFUSED.values(), ids=REFUSED)
def test_a_file_the_engine_refuses_is_no_file(
    moody: Moody, flags_of: Callable[..., UnleashFlags], rubbish: bytes, tmp_path: Path
):
    flags = flags_of(cache_folder=tmp_path)
    assert not flags.is_enabled("a")
    [file] = tmp_path.iterdir()
    flags.close()
    told = file.read_bytes()
    file.write_bytes(rubbish)
    moody.mood = "500"
    assert flags.is_enabled("a"), "nothing is known: the default"
    flags.close()
    moody.mood = "flags"
    assert not flags.is_enabled("a")
    assert file.read_bytes() == told, "and it is mended"


def test_rubbish_is_not_accepted_as_the_answer_it_stays_with(moody: Moody, flags_of: Callable[..., UnleashFlags]):
    """Its ETag is not sent: the server would say that nothing changed for ever after."""
    flags = flags_of()
    assert not flags.is_enabled("a")
    moody.mood = "a flag without strategies"
    moody.asked_again(3)
    assert moody.if_none_match == '"flags of 2"'


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize("mood", ["10 MB of JSON", "10 MB of a page", "HTML", "500"])
def test_rubbish_does_not_fill_memory(moody: Moody, flags_of: Callable[..., UnleashFlags], mood: str):
    flags = flags_of()
    assert not flags.is_enabled("a")
    moody.mood = mood
    moody.asked_again(5)
    before = memory()
    moody.asked_again(30)
    assert memory() - before < 20 * MIB
    assert not flags.is_enabled("a")


def test_warnings_come_once_a_minute(moody: Moody, flags_of: Callable[..., UnleashFlags], caplog, monkeypatch):
    monkeypatch.setattr("fan_identity.io.flag_client._WARN_SECONDS", 0.3)
    moody.mood = "500"
    flags = flags_of()
    began = time.monotonic()
    assert flags.is_enabled("a"), "the default"
    moody.asked_again(10)
    passed = time.monotonic() - began
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert 2 <= len(warnings) <= passed / 0.3 + 1


def test_a_look_is_made_where_the_last_is_long_ago(moody: Moody, flags_of: Callable[..., UnleashFlags], monkeypatch):
    """As in a process that Lambda froze: nothing ran in the background meanwhile."""
    moody_address = f"unleash+http://127.0.0.1:{moody.server_port}/api?refresh=1000s"
    flags = UnleashFlags.of(moody_address)
    assert not flags.is_enabled("a")
    moody.features = [feature("fan-identity.a"), feature("fan-identity.c"), feature("fan-identity.d")]
    asked = moody.asked
    flags.look()
    assert moody.asked == asked and not flags.is_enabled("a"), "the last look is young"
    now = time.time()
    monkeypatch.setattr("fan_identity.io.flag_client.time.time", lambda: now + 1_001)
    flags.look()
    assert moody.asked == asked + 1 and flags.is_enabled("a")
    flags.close()


def test_the_debug_toggle_switches_debug_level(moody: Moody, flags_of: Callable[..., UnleashFlags]):
    flags = flags_of()
    flags.look()
    log = logging.getLogger("fan_identity")
    assert not log.isEnabledFor(logging.DEBUG)
    for on in (True, False):
        moody.features = [*moody.features, feature("fan-identity.debug", enabled=on)]
        deadline = time.monotonic() + 60
        while log.isEnabledFor(logging.DEBUG) is not on:
            assert time.monotonic() < deadline
            time.sleep(0.005)
