"""The servers of ``make services``: on loopback only, reported as they are, and only ours are ever ended."""

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "services" / "run.py"
NAMES = (
    "redis",
    "elasticmq",
    "kafka",
    "dynamodb",
    "kinesalite",
    "pubsub",
    "toxiproxy",
    "versitygw",
    "gcs",
    "ministack",
    "postgresql",
    "unleash",
)
LISTENING = "0A"


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"FAN_IDENTITY_SERVICES_CACHE": str(folder)} if folder else {})}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )


def listening_addresses(port: int) -> set[str]:
    """Every address that something on this machine listens on at a port, from ``/proc/net``."""
    found = set()
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        for local, state in ((fields[1], fields[3]) for fields in map(str.split, lines)):
            host, _, at = local.partition(":")
            if state == LISTENING and int(at, 16) == port:
                words = [bytes.fromhex(host[start : start + 8])[::-1] for start in range(0, len(host), 8)]
                address = ip_address(b"".join(words))
                found.add(str(getattr(address, "ipv4_mapped", None) or address))
    return found


def ports_of(pid: int) -> set[int]:
    """Every port that a process listens on."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    ports = set()
    for table in ("tcp", "tcp6"):
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:]):
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in sockets:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


@pytest.fixture
def everywhere() -> Iterator[int]:
    """The port of a server that listens on every interface."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        yield listener.getsockname()[1]


def test_the_look_at_addresses_sees_what_listens_everywhere(everywhere):
    assert listening_addresses(everywhere) == {"0.0.0.0"}
    assert everywhere in ports_of(os.getpid())


def test_the_table_is_the_one_tested_here(servers):
    assert servers.names == list(NAMES)
    assert len({servers.port(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_server_listens_on_loopback_only_and_status_says_it_serves(name, server, servers):
    server(name)
    ports = {servers.port(name)}
    if servers.is_ours(name):  # all else it listens on, too
        description = servers.run.BY_NAME[name]
        ports |= ports_of(servers.run.running(description.run, description.mark))
    for port in ports:
        assert listening_addresses(port) <= {"127.0.0.1", "::1"}, port
    assert listening_addresses(servers.port(name)) == {"127.0.0.1"}
    said = run("status", name)
    assert said.returncode == 0, said
    assert said.stdout.split()[:3] == [name, servers.run.BY_NAME[name].address, "serves,"]
    assert said.stdout.rstrip().endswith("not started here") is not servers.is_ours(name)


def test_what_runs_is_left_alone(server, servers):
    server("redis")
    before = run("status", "redis").stdout
    again = run("start", "redis")
    assert again.returncode == 0, again
    assert "serves already" in again.stdout
    assert run("status", "redis").stdout == before


@pytest.fixture
def nobody(servers, tmp_path, monkeypatch):
    """A redis of another folder whose port nothing listens on."""
    monkeypatch.setenv("FAN_IDENTITY_SERVICES_CACHE", str(tmp_path))
    return dataclasses.replace(servers.run.BY_NAME["redis"], port=free_port())


def free_port() -> int:
    """One below those that the system hands out, which another process could be given in the meantime."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def test_status_tells_what_is_stopped(servers, nobody, capsys):
    assert servers.run.status([nobody]) is False
    assert capsys.readouterr().out.split() == ["redis", f"127.0.0.1:{nobody.port}", "stopped"]


def test_a_port_taken_by_something_else_is_no_server(servers, nobody, capsys):
    with socket.create_server(("127.0.0.1", nobody.port)) as listener:
        answering = threading.Thread(target=answer_wrongly, args=(listener, 4))
        answering.start()
        assert servers.run.status([nobody]) is False
        assert capsys.readouterr().out.endswith("its port is taken by something else\n")
        assert servers.run.start([nobody]) is False
        answering.join(60)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"redis: port {nobody.port} is taken by something else\n"


def answer_wrongly(listener: socket.socket, times: int) -> None:
    """Accepts so many connections and says what no server of ours would."""
    for _ in range(times):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("name", NAMES)
def test_a_probe_takes_no_answer_for_no_and_a_wrong_one_too(name, servers, nobody):
    probe = servers.run.BY_NAME[name].probe
    assert probe(nobody.port) is False
    with socket.create_server(("127.0.0.1", nobody.port)) as listener:
        answering = threading.Thread(target=answer_wrongly, args=(listener, 1))
        answering.start()
        assert probe(nobody.port) is False
        answering.join(60)


def test_one_that_ends_as_it_starts_is_reported_with_its_last_words(servers, nobody, capsys):
    launched = sys.modules[servers.run.spawn.__module__].Launch(("sh", "-c", "echo no such luck >&2; exit 3"))
    assert servers.run.start([dataclasses.replace(nobody, launch=lambda _: launched)]) is False
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("redis: ended as it started: no such luck (all of it: ")
    assert said.err.endswith("/run/redis/log)\n")


def test_one_that_does_not_answer_is_started_once_more_and_then_ended(servers, nobody, monkeypatch, capsys):
    monkeypatch.setattr(servers.run, "DEADLINE", 0.2)
    launched = sys.modules[servers.run.spawn.__module__].Launch(("sleep", "600"))
    silent = dataclasses.replace(nobody, mark="sleep 600", launch=lambda _: launched)
    assert servers.run.start([silent]) is False
    assert {file.name for file in nobody.run.iterdir()} >= {"log", "log.old"}
    assert capsys.readouterr().err.startswith("redis: does not answer within 0 s; see ")
    assert servers.run.running(nobody.run, "sleep 600") is None


def test_a_start_a_crash_a_restart_a_stop(servers, nobody, capsys):
    """The whole life of a redis on a port of its own."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    run = servers.run
    assert run.start([nobody]) is True
    first = run.running(nobody.run, nobody.mark)
    assert run.state(nobody) == f"serves, process {first}"
    (nobody.data / "kept").touch()
    try:
        assert run.kill9(nobody) is True
        assert run.state(nobody) == "stopped"
        assert run.kill9(nobody) is False
        assert run.restart([nobody]) is True
        second = run.running(nobody.run, nobody.mark)
        assert second not in (None, first)
        assert (nobody.data / "kept").exists(), "a restart keeps what is stored"
        assert run.start([nobody]) is True
        assert run.running(nobody.run, nobody.mark) == second
    finally:
        assert run.stop([nobody]) is True
    assert run.state(nobody) == "stopped"
    assert not nobody.data.exists()
    assert not Path(f"/proc/{second}").exists()
    lines = [line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if not line.endswith(" s")] == ["serves already", "stopped"]


def test_an_unknown_server_is_wrong_usage():
    said = run("start", "rediss")
    assert said.returncode == 2
    assert "no server 'rediss'; there are redis, elasticmq" in said.stderr


def test_one_that_was_not_started_here_is_not_ended(tmp_path, server):
    """Another checkout's folder: its redis answers, but no pid file here is its."""
    server("redis")
    said = run("stop", "redis", folder=tmp_path)
    assert said.returncode == 0, said
    assert "was not started here: left alone" in said.stdout
    server("redis")


def test_a_process_that_took_over_the_process_id_is_not_ended(tmp_path, servers):
    """Neither the number alone nor the number with its start time makes a process ours."""
    processes = sys.modules[servers.run.end.__module__]
    child = subprocess.Popen(["sleep", "600"])
    try:
        started = processes._started(child.pid)
        assert started is not None
        for text in (f"{child.pid} {started + 1}", f"{child.pid}", "", f"{child.pid} {started}"):
            (tmp_path / "pid").write_text(text)
            assert servers.run.end(tmp_path, "redis-server") is False
        assert child.poll() is None
        assert servers.run.end(tmp_path, "sleep 601") is False
        assert servers.run.running(tmp_path, "sleep 600") == child.pid
    finally:
        child.kill()
        child.wait()
    assert servers.run.running(tmp_path, "sleep 600") is None


def test_one_that_does_not_heed_sigterm_is_killed(tmp_path, servers, monkeypatch):
    processes = sys.modules[servers.run.end.__module__]
    monkeypatch.setattr(processes, "_ASKED_PATIENCE", 0.2)
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    pid = processes.spawn(processes.Launch((sys.executable, "-c", program)), tmp_path)
    while "deaf" not in (tmp_path / "log").read_text():
        assert processes.alive(tmp_path) == pid
    assert processes.end(tmp_path, "signal.SIG_IGN") is True
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "pid").exists()


def test_what_is_spawned_leads_a_session_of_its_own(tmp_path, servers):
    """A terminal's hang-up or Ctrl-C goes to a session's processes: not to the servers."""
    processes = sys.modules[servers.run.end.__module__]
    pid = processes.spawn(processes.Launch(("sleep", "600")), tmp_path)
    try:
        assert os.getsid(pid) == pid != os.getsid(0)
    finally:
        assert processes.end(tmp_path, "sleep 600", signal.SIGKILL)


class TestFetching:
    """A recipe is run once, anew when it changes, and a missing tool is named."""

    @pytest.fixture
    def fetching(self, servers):
        return sys.modules[servers.run.ensure.__module__]

    @pytest.fixture
    def recipe(self, fetching, tmp_path):
        source = tmp_path / "source"
        source.write_text("1")

        class Recipe:
            tools = ("true",)
            sources = (source,)
            fetched = 0
            fails = False

            def __repr__(self):
                return "Recipe"

            def fetch(self, folder, run):
                self.fetched += 1
                (folder / "part").write_text(source.read_text())
                if self.fails:
                    run("false", cwd=folder)

        return Recipe()

    def test_once(self, fetching, recipe, tmp_path):
        for _ in range(2):
            fetching.ensure(recipe, tmp_path / "parts", tmp_path / "log")
        assert recipe.fetched == 1

    def test_anew_when_a_source_changes(self, fetching, recipe, tmp_path):
        fetching.ensure(recipe, tmp_path / "parts", tmp_path / "log")
        recipe.sources[0].write_text("2")
        fetching.ensure(recipe, tmp_path / "parts", tmp_path / "log")
        assert (tmp_path / "parts" / "part").read_text() == "2"

    def test_what_failed_half_way_does_not_count(self, fetching, recipe, tmp_path):
        recipe.fails = True
        with pytest.raises(fetching.UnavailableError, match=r"false ended with 1: \$ false"):
            fetching.ensure(recipe, tmp_path / "parts", tmp_path / "log")
        assert (tmp_path / "log").read_text().count("$ false") == 2, "one more attempt"
        recipe.fails = False
        fetching.ensure(recipe, tmp_path / "parts", tmp_path / "log")
        assert recipe.fetched == 2

    def test_a_missing_tool_is_named_and_the_others_go_on(self, fetching, servers, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("FAN_IDENTITY_SERVICES_CACHE", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path))
        table = sys.modules["server_table"]
        monkeypatch.setattr(servers.run, "listens", lambda port: False)
        names = ("elasticmq", "kinesalite", "pubsub")
        assert servers.run.start([table.BY_NAME[name] for name in names]) is False
        said = capsys.readouterr()
        assert said.out == ""
        assert sorted(said.err.splitlines()) == [
            "elasticmq: needs mvn and java, which this machine does not have on PATH",
            "kinesalite: needs npm and node, which this machine does not have on PATH",
            "pubsub: needs go, which this machine does not have on PATH",
        ]

    def test_at_most_two_at_a_time_and_one_of_a_tool(self, fetching, tmp_path):
        inside, go_on = threading.Semaphore(0), threading.Event()

        class Recipe:
            sources = ()

            def __init__(self, tool):
                self.tools = (tool,)

            def fetch(self, folder, run):
                inside.release()
                assert go_on.wait(60)

        threads = [
            threading.Thread(target=fetching.ensure, args=(Recipe(tool), tmp_path / tool, tmp_path / "log"))
            for tool in ("true", "ls")
        ]
        for thread in threads:
            thread.start()
        try:
            assert all(inside.acquire(timeout=60) for _ in threads), "two of different tools run side by side"
            assert not fetching._slots.acquire(blocking=False), "a third would wait"
            assert fetching._lanes["true"].locked(), "another of the same tool would wait"
        finally:
            go_on.set()
            for thread in threads:
                thread.join(60)
        assert (tmp_path / "true" / ".complete").exists()
        assert (tmp_path / "ls" / ".complete").exists()
