"""What the end-to-end tests share: the command line as processes of their own, stores to look into, small sales.

``cli(...)`` runs ``fan-identity`` in a process forked from an interpreter that has Beam imported already: the same
``main()`` with arguments, environment, files and signals of its own, without the seconds an import takes. Where the
start itself matters (what is imported, what it writes), ``cli.fresh(...)`` starts the installed command.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest

from fan_identity.batch.simulate import SaleSettings, simulate

COMMAND = Path(sys.executable).with_name("fan-identity")
PATIENCE = 120.0
"""Seconds after which something a test waits for is taken never to come."""

_WARM_INTERPRETER = """
import atexit, ctypes, gc, json, os, resource, signal, sys, threading, traceback
import fan_identity.pipelines.cli.main as command_line
import fan_identity.batch.redrive, fan_identity.batch.report, fan_identity.batch.score_files
import fan_identity.batch.import_job, fan_identity.domain.import_summary, fan_identity.pipelines.cli.import_text
import fan_identity.io.parquet_files, fan_identity.pipelines.prism
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

def end_with_parent():
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

def become(request):
    os.setsid()
    os.chdir(request["folder"])
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT),
        (2, request["err"], os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(name, flags, 0o644), number)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["fan-identity", *request["arguments"]]
    if request["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], resource.RLIM_INFINITY))

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
gc.collect()
gc.freeze()  # a child that looks at every object would copy all of memory
command = None
print("ready", flush=True)
while command is None and (line := sys.stdin.readline()):
    request = json.loads(line)
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading) as answer:
            print(answer.read(), flush=True)
        continue
    end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child:
        os.write(writing, str(child).encode())
        os.close(writing)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with open(request["exit"] + ".new", "w") as file:
            file.write(str(status))
        os.rename(request["exit"] + ".new", request["exit"])
        os._exit(0)
    end_with_parent()
    os.close(reading)
    os.close(writing)
    become(request)
    command = command_line.main
if command is not None:
    code = 1
    try:
        code = command()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    # As Python ends, but for taking every module apart, which would copy all of memory.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
"""


class _Until:
    """Waits for conditions: never for a length of time."""

    def __call__(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Asks until the condition is true and returns what it said; fails the test where it never is."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds:.0f} s in vain: {what}", pytrace=False)
            time.sleep(0.002)
        return found


until_true = _Until()


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self
        return json.loads(lines[0])

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def err_lines(self) -> list[str]:
        return self.err.splitlines()


class Running:
    """A command that runs."""

    def __init__(self, pid: int, arguments: Sequence[str], base: Path) -> None:
        self.pid = pid
        self._arguments = arguments
        self._base = base

    @property
    def err(self) -> str:
        """What it wrote to standard error so far."""
        return self._base.with_suffix(".err").read_text(errors="backslashreplace")

    @property
    def out(self) -> str:
        """What it wrote to standard output so far, in whole lines."""
        return self._base.with_suffix(".out").read_text(errors="backslashreplace").rpartition("\n")[0]

    @property
    def code(self) -> int | None:
        """Its exit code (minus the signal that killed it), or None while it runs."""
        try:
            return int(self._base.with_suffix(".exit").read_text())
        except FileNotFoundError:
            return None

    def signal(self, number: int) -> None:
        """Sends a signal; one that has ended does not mind."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal_all(self, number: int) -> None:
        """Sends a signal to it and the processes it started, as a terminal does for Ctrl-C."""
        os.killpg(self.pid, number)

    def kill(self) -> int:
        """``kill -9``, and waits until it is gone. Returns its exit code: -9, or what it ended with just before."""
        self.signal(signal.SIGKILL)
        return self.wait().code

    def wait(self, seconds: float = PATIENCE) -> Result:
        """Waits for its end."""
        deadline = time.monotonic() + seconds
        while (code := self.code) is None:
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                pytest.fail(f"{self._arguments} did not end within {seconds:.0f} s; it wrote: {self.err}", False)
            time.sleep(0.002)
        return Result(code, self._base.with_suffix(".out").read_bytes(), self.err)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Waits for a condition while the command runs; fails where it ends before."""

        def met() -> Any:
            ended = self.code is not None  # asked first: what it did at its end counts
            found = condition()
            assert found or not ended, f"{self._arguments} ended with {self.code} before {what}: {self.err}"
            return found

        return until_true(met, what)


class CommandLine:
    """Runs ``fan-identity``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._running: list[Running] = []
        self._warm: subprocess.Popen[str] | None = None
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FAN_IDENTITY_", "_FAN_IDENTITY_")) and name != "APP_NAME"
        }

    def __call__(self, *arguments: object, **options: Any) -> Result:
        """Runs a command to its end; options as in ``start``."""
        return self.start(*arguments, **options).wait()

    def start(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        out: str | None = None,
        largest_file: int = 0,
    ) -> Running:
        """Starts a command.

        Args:
            arguments: of the command.
            env: added to the environment.
            folder: to run in.
            out: a file or device for standard output.
            largest_file: in bytes, a limit of the system; 0 for none.
        """
        self._number += 1
        base = self._folder / f"{self._number}"
        base.with_suffix(".out").touch()
        base.with_suffix(".err").touch()
        texts = [str(argument) for argument in arguments]
        request = {
            "arguments": texts,
            "env": {**self.environment, **(env or {})},
            "folder": str(folder or self._folder),
            "out": out or str(base.with_suffix(".out")),
            "err": str(base.with_suffix(".err")),
            "exit": str(base.with_suffix(".exit")),
            "largest_file": largest_file,
        }
        warm = self._warm_interpreter()
        assert warm.stdin is not None and warm.stdout is not None
        warm.stdin.write(json.dumps(request) + "\n")
        warm.stdin.flush()
        running = Running(int(warm.stdout.readline()), texts, base)
        self._running.append(running)
        return running

    def fresh(self, *arguments: object, env: Mapping[str, str] | None = None, check: bool = False) -> Result:
        """Runs the installed command in an interpreter of its own."""
        done = subprocess.run(
            [str(COMMAND), *map(str, arguments)],
            env={**self.environment, **(env or {})},
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=check,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode(errors="backslashreplace"))

    def _warm_interpreter(self) -> "subprocess.Popen[str]":
        if self._warm is None:
            with (self._folder / "warm.err").open("w") as errors:
                self._warm = subprocess.Popen(
                    [sys.executable, "-c", _WARM_INTERPRETER],
                    env=self.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
            assert self._warm.stdout is not None
            assert self._warm.stdout.readline() == "ready\n", (self._folder / "warm.err").read_text()
        return self._warm

    def end_all(self) -> None:
        """Ends what a test left running."""
        while self._running:
            running = self._running.pop()
            if running.code is None:
                running.signal(signal.SIGCONT)
                running.kill()

    def close(self) -> None:
        self.end_all()
        if self._warm is not None and self._warm.stdin is not None:
            self._warm.stdin.close()
            self._warm.wait(PATIENCE)


@dataclass
class Store:
    """A store's file, looked into without the program's own code where that can tell more."""

    path: Path
    cli: CommandLine = field(repr=False)

    @property
    def address(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def flag(self) -> tuple[str, str]:
        return "--store", self.address

    def dump(self) -> bytes:
        """``fan-identity dump``."""
        result = self.cli("dump", *self.flag)
        assert (result.code, result.err) == (0, "")
        return result.out

    def score(self, *inputs: object, **options: Any) -> Any:
        """``fan-identity score INPUT… --json``, which must end well (dead letters allowed); its books."""
        result = self.cli("score", *inputs, *self.flag, "--json", **options)
        assert result.code in (0, 1), result
        books = result.json
        assert (result.code == 1) == (books["deadLetteredTotal"] > 0), result
        return books

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a query; none where the store or its tables are not made yet."""
        try:
            connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=PATIENCE)
        except sqlite3.OperationalError:
            return []
        try:
            return connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error) or "unable to open" in str(error):
                return []
            raise
        finally:
            connection.close()

    def number(self, sql: str) -> int:
        """The one number a query finds; 0 where there is none yet."""
        rows = self.query(sql)
        return (rows[0][0] or 0) if rows else 0

    def sent(self) -> int:
        """Messages ever put into the queues; each replacement of one counts."""
        return self.number("SELECT sum(last_seq) FROM queues")

    def waiting(self) -> int:
        """Messages in the queues."""
        return self.number("SELECT count(*) FROM messages")

    def scores(self) -> int:
        """Score items."""
        return self.number("SELECT count(*) FROM items WHERE sk LIKE 'SCORE#%'")

    def messages(self) -> list[dict[str, Any]]:
        """Messages in the queues in the order sent; ``activity`` stays text."""
        return [
            msgspec.json.decode(body, type=dict[str, Any])
            for (body,) in self.query("SELECT body FROM messages ORDER BY seq")
        ]

    def score_items(self) -> list[dict[str, Any]]:
        """Score items in the order they were first written."""
        return [
            json.loads(body) for (body,) in self.query("SELECT body FROM items WHERE sk LIKE 'SCORE#%' ORDER BY rowid")
        ]

    def ids_by_user(self) -> dict[str, list[str]]:
        """For each user the activity ids of the scores, in the order they were first written."""
        ids: dict[str, list[str]] = defaultdict(list)
        for item in self.score_items():
            ids[item["globalUserId"]].append(item["activityId"])
        return dict(ids)

    def item_keys(self) -> set[tuple[str, str]]:
        """(PK, SK) of every item but jobs' locks and what runs here (reports, audit log)."""
        return set(self.query("SELECT pk, sk FROM items WHERE sk != 'LOCK' AND table_name != 'operations'"))

    def dead_letters(self) -> list[tuple[str, str, bytes]]:
        """(reason, position, original bytes) of every dead letter, sorted."""
        return sorted(self.query("SELECT reason, position, payload FROM dead_letters"))


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    command_line = CommandLine(tmp_path_factory.mktemp("cli"))
    yield command_line
    command_line.close()


@pytest.fixture
def cli(commands: CommandLine) -> Iterator[CommandLine]:
    """The command line; what a test leaves running ends with it."""
    yield commands
    commands.end_all()


@pytest.fixture(scope="session")
def store_at(commands: CommandLine) -> Callable[[Path], Store]:
    """The store of a path, which is no file before a command makes it."""
    return lambda path: Store(path, commands)


@pytest.fixture
def make_store(cli: CommandLine, tmp_path: Path) -> Callable[..., Store]:
    """Makes stores by name."""
    return lambda name="fans": Store(tmp_path / f"{name}.db", cli)


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store()


@pytest.fixture
def until() -> _Until:
    return until_true


@pytest.fixture(scope="session")
def sale() -> Callable[..., list[bytes]]:
    """Simulates a small sale: lines in the order of arrival, noise included."""

    def simulated(fans: int, bots: int, seed: int, **settings: Any) -> list[bytes]:
        return simulate(SaleSettings(fans=fans, bots=bots, seed=seed, **settings)).lines

    return simulated


@pytest.fixture(scope="session")
def prism() -> str:
    """The Prism binary; skips by name where it is missing."""
    beside_python = Path(sys.executable).with_name("prism")
    found = os.environ.get("FAN_IDENTITY_PRISM") or (beside_python.is_file() and beside_python) or shutil.which("prism")
    if not found:
        pytest.skip("Prism, Beam's local streaming runner, is not installed; `make prism` gets it (needs Go)")
    return str(found)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes folders on file systems of so many bytes; skips by name where mounting is not allowed."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        if os.geteuid() != 0:
            pytest.skip("only root can mount a small tmpfs")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture
def made_up_aws_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials nobody has, in a process whose environment says nothing else of AWS and proxies."""
    for name in (
        *("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"),
        *("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "http_proxy", "HTTP_PROXY"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made-up")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
