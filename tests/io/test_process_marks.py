"""Marks of processes: alive, killed, not yet asked about by their parent, and what is no mark."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fan_identity.io.process_marks import is_gone, process_mark

pytestmark = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="marks are made on Linux")


def test_this_process_is_here_and_its_number_under_another_start_is_not():
    mark = process_mark()
    assert not is_gone(mark)
    place, start = mark.rpartition(" ")[::2]
    assert is_gone(f"{place} {int(start) - 1}")


def test_a_killed_child_is_gone_before_and_after_its_parent_asks():
    code = "from fan_identity.io.process_marks import process_mark; print(process_mark(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        mark = child.stdout.readline().rstrip("\n")
        assert not is_gone(mark)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie still
        assert is_gone(mark)
    assert is_gone(mark)


@pytest.mark.parametrize("mark", ["", "x", "a b c", f"elsewhere pid:[1] {os.getpid()} 1", " 1 1"])
def test_of_what_is_elsewhere_or_no_mark_nobody_can_tell(mark):
    assert not is_gone(mark)


def test_of_a_machine_of_the_same_name_nobody_can_tell():
    host, _, rest = process_mark().partition(" ")
    assert is_gone(f"{host} {rest.rpartition(' ')[0]} 1"), "here another start would say so"
    assert not is_gone(f"{host} another-boot {rest.partition(' ')[2].rpartition(' ')[0]} 1")
