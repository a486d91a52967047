"""What tests against real servers share: whether a server is there, names of their own, kills and restarts.

``make services`` starts the servers (docs/services.md). A test that needs one says so with ``server("kafka")`` and is
skipped where it does not run. FAN_IDENTITY_REQUIRE_SERVICES names those that may not be missing (``all``, or names with
commas between): there the test fails instead, so that CI cannot pass by skipping.
"""

import importlib.util
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "services" / "run.py"
PATIENCE = 180.0
"""Seconds a restart may take: the deadline of ``run.py`` and some more."""

_AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_AWS_ABSENT = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL")


def _load_run() -> ModuleType:
    """The module that ``make services`` runs, with those that stand beside it."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("services_run", SCRIPT)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


class Servers:
    """The real servers, by name."""

    def __init__(self) -> None:
        self.run: Any = _load_run()

    @property
    def names(self) -> list[str]:
        """All there are, running or not."""
        return list(self.run.BY_NAME)

    def port(self, name: str) -> int:
        """Its port on 127.0.0.1."""
        return self.run.BY_NAME[name].port

    def serves(self, name: str) -> bool:
        """Whether it answers as its kind does."""
        server = self.run.BY_NAME[name]
        return server.probe(server.port)

    def is_ours(self, name: str) -> bool:
        """Whether ``make services`` started it; only such a one is killed or restarted."""
        server = self.run.BY_NAME[name]
        return self.run.running(server.run, server.mark) is not None

    def kill9(self, name: str) -> None:
        """Kills it as a crash would, and waits until it is gone; skips where it was not started by ``make services``.

        What it stored on disk stays. The test must ``restart`` it, come what may: others need it.
        """
        self._need_ours(name)
        assert self.run.kill9(self.run.BY_NAME[name])

    def restart(self, name: str) -> None:
        """Ends it in order, if it runs, starts it on what it stored, and waits until it serves.

        Those that store in memory (all but Kafka and PostgreSQL) come back empty.
        """
        if self.serves(name):
            self._need_ours(name)
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "restart", name],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _need_ours(self, name: str) -> None:
        if not self.is_ours(name):
            pytest.skip(f"{name} was not started by `make services`: not ours to kill")


@pytest.fixture(scope="session")
def servers() -> Servers:
    return Servers()


@pytest.fixture(scope="session")
def server(servers: Servers) -> Callable[[str], None]:
    """Skips the test where a server does not answer (fails where FAN_IDENTITY_REQUIRE_SERVICES names it)."""
    required = os.environ.get("FAN_IDENTITY_REQUIRE_SERVICES", "").replace(" ", "").split(",")

    def need(name: str) -> None:
        if not servers.serves(name):
            missing = f"no {name}: `make services` starts it"
            if name in required or "all" in required:
                pytest.fail(missing, pytrace=False)
            pytest.skip(missing)

    return need


@pytest.fixture(scope="session", autouse=True)
def _fake_aws_credentials() -> Iterator[None]:
    """No test can reach an account: the credentials are made up and no file of the user's is read."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _AWS.items():
            patch.setenv(name, value)
        for name in _AWS_ABSENT:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """Makes names that no other test and no other run has: ``unique("fans")`` is ``fans-`` and 12 hex digits."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:12]}"
