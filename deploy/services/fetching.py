"""Gets the servers' programs with the machine's own package tools, once.

A recipe says what is wanted; ``ensure`` runs it unless its folder is complete. The folder is complete when its stamp
holds the recipe, so a new version or a changed source file is fetched anew and a broken download never counts.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_PATIENCE: Final = 300.0
"""Seconds for one command of a package tool."""

_ATTEMPTS: Final = 2
_COPY_DEPENDENCIES: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_slots: Final = threading.Semaphore(2)
_lanes: Final[dict[str, threading.Lock]] = defaultdict(threading.Lock)
"""One run of each package tool at a time: Maven's local repository does not bear two."""


class UnavailableError(Exception):
    """A server cannot be had or does not start; the message is the reason, in one line."""


class Recipe(Protocol):
    """What is wanted, from one package tool."""

    @property
    def tools(self) -> tuple[str, ...]:
        """Commands it needs, the package tool first."""
        ...

    @property
    def sources(self) -> tuple[Path, ...]:
        """Our own files that go into it."""
        ...

    def fetch(self, folder: Path, run: "Runner") -> None:
        """Fills an empty folder.

        Raises:
            UnavailableError: it cannot be had.
        """
        ...


class Runner:
    """Runs a package tool's commands and keeps what they say.

    Args:
        log: the file it is kept in.
    """

    def __init__(self, log: Path) -> None:
        self._log = log

    def __call__(
        self, *argv: str, cwd: Path, environment: Mapping[str, str] | None = None, attempts: int = _ATTEMPTS
    ) -> None:
        """Runs a command, once more where it fails: a registry may be out of breath.

        Raises:
            UnavailableError: it failed again; with its last line.
        """
        how = ""
        with self._log.open("ab") as output:
            for _ in range(attempts):
                output.write(f"$ {' '.join(argv)}\n".encode())
                output.flush()
                try:
                    done = subprocess.run(  # noqa: S603 - commands of our own recipes
                        argv,
                        cwd=cwd,
                        env={**os.environ, **(environment or {})},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        timeout=_PATIENCE,
                        check=False,
                    )
                except subprocess.TimeoutExpired:
                    how = f"did not end within {_PATIENCE:.0f} s"
                    continue
                if done.returncode == 0:
                    return
                how = f"ended with {done.returncode}"
        raise UnavailableError(f"{Path(argv[0]).name} {how}: {last_line(self._log)} (all of it: {self._log})")


def ensure(recipe: Recipe, folder: Path, log: Path) -> None:
    """Fills a folder as a recipe says, unless it is complete.

    At most two recipes run at a time, and one of each tool.

    Raises:
        UnavailableError: it cannot be had.
    """
    stamp = folder / ".complete"
    wanted = _digest(recipe, folder)
    with _lanes[recipe.tools[0]]:
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        with _slots:
            require(*recipe.tools)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            log.unlink(missing_ok=True)
            recipe.fetch(folder, Runner(log))
            stamp.write_text(wanted)


def require(*tools: str) -> None:
    """Checks that commands are on PATH.

    Raises:
        UnavailableError: one is missing.
    """
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise UnavailableError(f"needs {' and '.join(missing)}, which this machine does not have on PATH")


def last_line(file: Path) -> str:
    """The last line of a log that says anything, at most 300 characters; what Maven or npm mean is seldom longer."""
    try:
        lines = file.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


@dataclass(frozen=True)
class Maven:
    """Jars and all they depend on, in ``lib/``.

    Args:
        coordinates: ``group:artifact:version`` each.
        natives: of a native library in ``lib/``, its file name there and the one it is looked for by, in ``native/``.
        launcher: a Java class of ours to compile against them, into ``classes/``.
    """

    coordinates: tuple[str, ...]
    natives: tuple[tuple[str, str], ...] = ()
    launcher: Path | None = None

    @property
    def tools(self) -> tuple[str, ...]:
        """Maven, which needs Java; a compiler for the launcher."""
        return ("mvn", "java") if self.launcher is None else ("mvn", "java", "javac")

    @property
    def sources(self) -> tuple[Path, ...]:
        """The launcher."""
        return () if self.launcher is None else (self.launcher,)

    def fetch(self, folder: Path, run: Runner) -> None:
        """Copies the jars, renames native libraries, compiles the launcher."""
        dependencies = "".join(
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
            for group, artifact, version in (coordinate.split(":") for coordinate in self.coordinates)
        )
        (folder / "pom.xml").write_text(
            "<project><modelVersion>4.0.0</modelVersion><groupId>services</groupId><artifactId>services</artifactId>"
            f"<version>1</version><packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>\n"
        )
        arguments = ("-DoutputDirectory=lib", "-DincludeScope=runtime")
        run("mvn", "-q", "-B", _COPY_DEPENDENCIES, *arguments, cwd=folder)
        for name, wanted in self.natives:
            (folder / "native").mkdir(exist_ok=True)
            shutil.copyfile(folder / "lib" / name, folder / "native" / wanted)
        if self.launcher is not None:
            run("javac", "-cp", "lib/*", "-d", "classes", str(self.launcher), cwd=folder, attempts=1)


@dataclass(frozen=True)
class Npm:
    """A package for Node in ``node_modules/``. No install scripts are run and nothing optional is built."""

    package: str

    @property
    def tools(self) -> tuple[str, ...]:
        """Npm and Node."""
        return ("npm", "node")

    @property
    def sources(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def fetch(self, folder: Path, run: Runner) -> None:
        """Installs it."""
        (folder / "package.json").write_text('{"private": true}\n')
        flags = ("--ignore-scripts", "--omit=optional", "--no-package-lock", "--no-audit", "--no-fund")
        run("npm", "install", *flags, self.package, cwd=folder)


@dataclass(frozen=True)
class GoBuild:
    """A Go program of ours, locked by its own go.sum, as ``bin/NAME``."""

    module: Path

    @property
    def tools(self) -> tuple[str, ...]:
        """Go."""
        return ("go",)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The module's files."""
        return tuple(sorted(self.module.iterdir()))

    def fetch(self, folder: Path, run: Runner) -> None:
        """Builds it."""
        output = str(folder / "bin" / self.module.name)
        flags = ("-mod=readonly", "-buildvcs=false", "-o", output)
        run("go", "build", *flags, ".", cwd=self.module, environment={"CGO_ENABLED": "0"})


@dataclass(frozen=True)
class GoInstall:
    """Another's Go program (``path@version``), in ``bin/``."""

    program: str

    @property
    def tools(self) -> tuple[str, ...]:
        """Go."""
        return ("go",)

    @property
    def sources(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def fetch(self, folder: Path, run: Runner) -> None:
        """Builds it."""
        run("go", "install", self.program, cwd=folder, environment={"CGO_ENABLED": "0", "GOBIN": str(folder / "bin")})


@dataclass(frozen=True)
class Venv:
    """A Python package in an environment of its own, apart from the project's locked one."""

    requirement: str

    @property
    def tools(self) -> tuple[str, ...]:
        """This interpreter."""
        return (sys.executable,)

    @property
    def sources(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def fetch(self, folder: Path, run: Runner) -> None:
        """Makes the environment and installs it."""
        run(sys.executable, "-m", "venv", ".", cwd=folder, attempts=1)
        run("bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", self.requirement, cwd=folder)


def installed(find: Callable[[], str | None], package: str, log: Path) -> str:
    """A program of Debian's, installed where it is missing and we may.

    Args:
        find: returns the program's path, or None.
        package: Debian's name for it, and for the service that it starts, which is stopped again: ours runs instead.
        log: what apt-get says is kept there.

    Returns:
        The program's path.

    Raises:
        UnavailableError: it is not there and cannot be installed.
    """
    with _lanes["apt-get"]:
        found = find()
        if found is None:
            if os.geteuid() != 0 or shutil.which("apt-get") is None:
                raise UnavailableError(f"needs {package}, which is not installed (with apt-get: run this as root)")
            run, here = Runner(log), log.parent
            with _slots:
                run("apt-get", "update", "-q", cwd=here)
                quiet = {"DEBIAN_FRONTEND": "noninteractive"}
                flags = ("-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120")
                run("apt-get", "install", *flags, package, cwd=here, environment=quiet)
                if shutil.which("service") is not None:
                    run("service", package, "stop", cwd=here, attempts=1)
            found = find()
    if found is None:
        raise UnavailableError(f"needs {package}: installed, but its program is not where it should be")
    return found


def _digest(recipe: Recipe, folder: Path) -> str:
    """Of all that decides what is in the folder; of its place too, which a virtual environment has in its scripts."""
    digest = hashlib.sha256(f"{recipe!r} {folder}".encode())
    for source in recipe.sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()
