"""A Flink cluster on this machine and what Beam needs beside it: versions, ports, how each part is got and started."""

import json
import os
import shutil
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fetching import Maven, Recipe, Runner
from probes import HOST, Probe, answers_http, answers_http2, listens
from processes import Launch
from server_table import root

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE.parents[1]
CONF: Final = HERE / "conf"
REST: Final = 18081
"""Of the JobManager; conf/flink-conf.yaml says so too, and which ports Flink uses within."""

_PACKAGES: Final = (
    "java.lang java.lang.invoke java.lang.reflect java.util java.util.concurrent java.util.concurrent.atomic "
    "java.util.concurrent.locks java.nio java.net java.io java.text java.time sun.net.util sun.nio.ch"
)
_OPEN: Final = tuple(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _PACKAGES.split())
"""What Flink 1.16 and Beam reach into that Java 17 keeps shut."""


@dataclass(frozen=True)
class FlinkLibraries:
    """Flink's jars, which PyPI has for PyFlink: ``lib/`` out of its source distribution."""

    version: str

    @property
    def tools(self) -> tuple[str, ...]:
        """Java runs them; pip is this interpreter's."""
        return (sys.executable, "java")

    @property
    def sources(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def fetch(self, folder: Path, run: Runner) -> None:
        """Downloads the source distribution and keeps the jars."""
        run(sys.executable, "-m", "venv", "pip", cwd=folder, attempts=1)
        flags = ("-q", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:", "-d", "sdist")
        run("pip/bin/python", "-m", "pip", "download", *flags, f"apache-flink-libraries=={self.version}", cwd=folder)
        (archive,) = (folder / "sdist").iterdir()
        (folder / "lib").mkdir()
        with tarfile.open(archive) as members:
            for member in members:
                path = Path(member.name)
                if member.isfile() and path.suffix == ".jar" and path.parts[1:3] == ("deps", "lib"):
                    member.name = path.name
                    members.extract(member, folder / "lib", filter="data")
        for done in ("pip", "sdist"):
            shutil.rmtree(folder / done)


@dataclass(frozen=True)
class BeamFlink:
    """Beam's runner for Flink and all it depends on in ``lib/``, and our class of it in ``loopback.jar``."""

    maven: Maven

    @property
    def tools(self) -> tuple[str, ...]:
        """Maven and Java's compiler."""
        return self.maven.tools

    @property
    def sources(self) -> tuple[Path, ...]:
        """Our class."""
        return self.maven.sources

    def fetch(self, folder: Path, run: Runner) -> None:
        """Copies the jars, compiles the class; a jar, since a job takes no folders along to the cluster."""
        self.maven.fetch(folder, run)
        shutil.make_archive(str(folder / "loopback"), "zip", folder / "classes")
        (folder / "loopback.zip").rename(folder / "loopback.jar")


@dataclass(frozen=True)
class Part:
    """One process.

    Args:
        name: its name on the command line.
        port: on 127.0.0.1.
        mark: text that its command line in ``/proc`` holds.
        launch: says how to start it.
        probe: whether it serves yet.
        program: the name of its program's folder.
        recipe: how that is got; None for what the project's environment has.
        note: for people, in ``status``.
    """

    name: str
    port: int
    mark: str
    launch: "Callable[[Part], Launch]"
    probe: Probe
    program: str = ""
    recipe: Recipe | None = None
    note: str = ""

    @property
    def folder(self) -> Path:
        """Of its program, which stays."""
        return root() / "parts" / self.program

    @property
    def run(self) -> Path:
        """The folder it runs in: ``pid``, ``log``, ``data/``."""
        return root() / "run" / self.name

    @property
    def data(self) -> Path:
        """What it stores; gone after ``stop``."""
        return self.run / "data"


CHECKPOINTS: Final = root() / "run" / "flink-jobmanager" / "data" / "checkpoints"
SAVEPOINTS: Final = CHECKPOINTS.with_name("savepoints")


def _flink(part: Part, main: str, *arguments: str, memory: tuple[str, ...]) -> Launch:
    log = (f"-Dlog4j.configurationFile={(CONF / 'log4j.properties').as_uri()}", f"-Dlog.file={part.run / 'log'}")
    folders = {
        "io.tmp.dirs": str(part.data / "tmp"),
        "blob.storage.directory": str(part.data / "blobs"),
        "state.checkpoints.dir": CHECKPOINTS.as_uri(),
        "state.savepoints.dir": SAVEPOINTS.as_uri(),
    }
    for name in ("tmp", "blobs"):
        (part.data / name).mkdir(parents=True, exist_ok=True)
    java = ("java", *memory, "-XX:+UseSerialGC", *_OPEN, *log, "-cp", str(part.folder / "lib" / "*"), main)
    return Launch(
        (*java, "--configDir", str(CONF), *(f"-D{key}={value}" for key, value in folders.items()), *arguments)
    )


def _jobmanager(part: Part) -> Launch:
    main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
    return _flink(part, main, "--executionMode", "cluster", memory=("-Xmx448m", "-XX:MaxMetaspaceSize=512m"))


def _taskmanager(part: Part) -> Launch:
    main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
    memory = ("-Xmx640m", "-XX:MaxDirectMemorySize=256m", "-XX:MaxMetaspaceSize=512m")
    return _flink(part, main, memory=memory)


def _jobserver(part: Part) -> Launch:
    local = part.name.endswith("local")
    arguments = {
        "flink-master": "[local]" if local else f"localhost:{REST}",
        "flink-conf-dir": str(HERE / "conf-local" if local else CONF),
        "job-host": "localhost",
        "job-port": str(part.port),
        "artifact-port": str(part.port - 1),
        "expansion-port": "-1",  # none: our transforms are Python
        "artifacts-dir": str(part.data / "artifacts"),
    }
    flags = tuple(f"--{name}={value}" for name, value in arguments.items())
    main = "org.apache.beam.runners.flink.FlinkJobServerDriver"
    classes = f"{part.folder / 'loopback.jar'}:{part.folder / 'lib' / '*'}"  # ours first
    return Launch(("java", "-Xmx512m", "-XX:+UseSerialGC", *_OPEN, "-cp", classes, main, *flags))


def _workers(part: Part) -> Launch:
    # Servers on this machine take any credentials, but clients want to have some.
    credentials = {name: os.environ.get(name, "test") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    region = {"AWS_DEFAULT_REGION": os.environ.get("AWS_DEFAULT_REGION", "us-east-1")}
    python = str(PROJECT / ".venv" / "bin" / "python")
    environment = {**credentials, **region, "AWS_EC2_METADATA_DISABLED": "true"}
    return Launch((python, str(HERE / "worker_pool.py"), str(part.port)), environment)


def rest(path: str) -> object:
    """What the JobManager answers.

    Raises:
        OSError: nothing, or not in time.
    """
    with urllib.request.urlopen(f"http://{HOST}:{REST}{path}", timeout=5) as answer:
        return json.load(answer)


def _is_registered(port: int) -> bool:
    """Whether a TaskManager listens, and the JobManager knows one."""
    try:
        return listens(port) and bool(rest("/taskmanagers")["taskmanagers"])  # type: ignore[index]
    except (OSError, ValueError):
        return False


_FLINK: Final = FlinkLibraries("1.16.3")
_BEAM: Final = BeamFlink(
    Maven(
        ("org.apache.beam:beam-runners-flink-1.16:2.50.0", "org.slf4j:slf4j-simple:1.7.30"),
        launcher=HERE / "loopback" / "ServerFactory.java",
    )
)

PARTS: Final = (
    Part(
        "flink-jobmanager",
        REST,
        "StandaloneSessionClusterEntrypoint",
        _jobmanager,
        answers_http("/overview", 200),
        "flink-1.16.3",
        _FLINK,
        "Flink's pages and REST",
    ),
    Part(
        "flink-taskmanager",
        18122,
        "TaskManagerRunner",
        _taskmanager,
        _is_registered,
        "flink-1.16.3",
        _FLINK,
        "4 slots",
    ),
    Part(
        "beam-jobserver",
        18099,
        "FlinkJobServerDriver",
        _jobserver,
        answers_http2,
        "beam-flink-2.50.0",
        _BEAM,
        "--job_endpoint, runs on the cluster",
    ),
    Part(
        "beam-jobserver-local",
        18109,
        "FlinkJobServerDriver",
        _jobserver,
        answers_http2,
        "beam-flink-2.50.0",
        _BEAM,
        "--job_endpoint, runs inside the job server",
    ),
    Part("beam-workers", 18096, "worker_pool.py", _workers, answers_http2, note="--environment_config"),
)

BY_NAME: Final = {part.name: part for part in PARTS}
