"""Locks on a store, between processes: released however a process ends."""

import signal
import subprocess
import sys

import pytest

from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.store_lock import store_lock

_HOLDER = """
import sys
from pathlib import Path
from fan_identity.io.store_lock import store_lock
with store_lock(Path(sys.argv[1]), exclusive=sys.argv[2] == "exclusive"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder():
    processes = []

    def start(path, kind):
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(path), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def held(path, *, exclusive):
    with store_lock(path, exclusive=exclusive):
        return True


@pytest.mark.parametrize(
    ("theirs", "exclusive", "admitted"),
    [("exclusive", True, False), ("exclusive", False, False), ("shared", True, False), ("shared", False, True)],
)
def test_who_may_work_beside_whom(tmp_path, holder, theirs, exclusive, admitted):
    path = tmp_path / "s.db"
    process = holder(path, theirs)
    if admitted:
        assert held(path, exclusive=exclusive)
    else:
        with pytest.raises(BackendUnavailableError, match="in use by another fan-identity process") as caught:
            held(path, exclusive=exclusive)
        assert str(path) in str(caught.value)
    process.communicate("done\n", timeout=30)
    assert held(path, exclusive=exclusive)


def test_a_killed_process_holds_nothing(tmp_path, holder):
    path = tmp_path / "s.db"
    process = holder(path, "exclusive")
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert held(path, exclusive=True)


def test_a_store_of_another_name_is_free(tmp_path, holder):
    holder(tmp_path / "s.db", "exclusive")
    assert held(tmp_path / "other.db", exclusive=True)


def test_a_failure_inside_releases_the_lock(tmp_path):
    path = tmp_path / "s.db"
    with pytest.raises(ZeroDivisionError), store_lock(path, exclusive=True):
        _ = 1 / 0
    assert held(path, exclusive=True)
    assert not path.exists(), "the store itself is not touched"


def test_a_lock_that_cannot_be_made_is_told(tmp_path):
    with pytest.raises(BackendUnavailableError, match=r"cannot make s\.db\.lock beside it: No such file"):
        held(tmp_path / "missing" / "s.db", exclusive=False)
