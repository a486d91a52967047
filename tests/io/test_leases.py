"""Leases on an SQLite store: two processes, kills, losses, and a take-over by exactly one."""

import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fan_identity.io.clock import now_ms
from fan_identity.io.errors import FanIdentityError
from fan_identity.io.leases import LEASE_SK, Lease, LeaseHeldError, LeaseLostError, lease_pk
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

_HOLDER = """
import sys
from pathlib import Path
from fan_identity.io.leases import Lease
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable
with Lease(SqliteTable(SqliteStore(Path(sys.argv[1])), "fans"), "import cluster", "first", float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def table(tmp_path):
    return SqliteTable(SqliteStore(tmp_path / "fans.db"), "fans")


@pytest.fixture
def holder(tmp_path, table):
    """Starts a process that holds the lease until a line comes; the table's file is made."""
    table.put({"PK": "p", "SK": "s"})
    started = []

    def start(ttl_seconds):
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(tmp_path / "fans.db"), str(ttl_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def taken(lease):
    """Whether the lease can be taken now; given back at once."""
    try:
        with lease:
            return True
    except LeaseHeldError:
        return False


def test_another_process_is_told_who_holds_it_and_gets_it_after(table, holder):
    process = holder(30)
    with pytest.raises(LeaseHeldError, match=r"^import cluster is being run by first since 20..-.*Z; wait") as refused:
        Lease(table, "import cluster", "second").__enter__()
    assert isinstance(refused.value, FanIdentityError)
    assert refused.value.exit_code == 3
    assert taken(Lease(table, "import botOrNot")), "another job's lock is another lock"

    assert process.communicate("end\n")[0] == ""
    assert process.returncode == 0
    assert taken(Lease(table, "import cluster", "second")), "given back, it is free at once"


def test_a_killed_holders_lease_ends_by_itself(table, holder, until, monkeypatch):
    process = holder(3.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
    assert not taken(Lease(table, "import cluster")), "a kill gives nothing back, and from elsewhere nobody sees it"
    until(lambda: taken(Lease(table, "import cluster")), "the lease ends")
    assert now_ms() >= table.get(lease_pk("import cluster"), LEASE_SK)["expiresAt"]


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="processes are looked at in /proc, on Linux")
def test_on_one_machine_a_killed_holders_lease_is_taken_at_once(table, holder):
    process = holder(600.0)
    assert not taken(Lease(table, "import cluster"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert taken(Lease(table, "import cluster"))


def test_a_live_holder_outlasts_many_ends(table, holder, until):
    holder(0.6)
    first = table.get(lease_pk("import cluster"), LEASE_SK)
    until(lambda: table.get(lease_pk("import cluster"), LEASE_SK)["token"] >= first["token"] + 6, "it is renewed")
    item = table.get(lease_pk("import cluster"), LEASE_SK)
    assert item["expiresAt"] > first["expiresAt"] + 600
    assert (item["acquiredAt"], item["run"]) == (first["acquiredAt"], first["run"])


def test_a_stopped_holder_notices_that_it_lost_it(table, holder, until):
    process = holder(1.0)
    process.send_signal(signal.SIGSTOP)
    second = Lease(table, "import cluster", "second", 30.0)
    until(lambda: table.get(lease_pk("import cluster"), LEASE_SK)["expiresAt"] < now_ms(), "the lease ends")
    with second:
        process.send_signal(signal.SIGCONT)
        process.communicate("end\n")
        assert process.returncode == 0
        second.check()
        assert table.get(lease_pk("import cluster"), LEASE_SK)["owner"] == "second", "not given back by the first"


def test_who_lost_it_is_refused(table, until):
    def refused():
        try:
            first.check()
        except LeaseLostError as error:
            return "another run took the lock over" in str(error)
        return False

    with Lease(table, "job", "first", 0.5) as first:
        first.check()
        # Another machine, whose clock is far ahead.
        with Lease(table, "job", "second", 30.0, lambda: now_ms() + 60_000) as second:
            until(refused, "the loss is noticed")
            assert second.token > first.token
            second.check()
        assert refused(), "lost is lost, though the other has ended"
    assert table.get(lease_pk("job"), LEASE_SK)["token"] == second.token + 1, "nothing was written by the first"


def test_late_but_nobody_elses_is_kept(table):
    class Unreachable(SqliteTable):
        """Renewals fail until ``reachable`` is set."""

        reachable = True

        def put_if_newer(self, items):
            if not self.reachable:
                failed.set()
                raise FanIdentityError("out of reach")
            return super().put_if_newer(items)

    failed = threading.Event()
    far = Unreachable(table._store, "fans")
    with Lease(far, "job", "first", 0.3) as lease:
        far.reachable = False
        assert failed.wait(30)
        with pytest.raises(FanIdentityError, match="out of reach"):
            while True:  # until the last renewal is too old to be trusted
                lease.check()
        far.reachable = True
        lease.check()
    assert taken(Lease(table, "job"))


@pytest.mark.parametrize("before", ["never held", "ended"])
def test_of_many_exactly_one_takes_it(table, before):
    table.put({"PK": "p", "SK": "s"})
    for number in range(10):
        job = f"job {number}"
        if before == "ended":
            gone = {"owner": "gone", "run": "x", "acquiredAt": 1, "expiresAt": now_ms() - 1, "token": 7}
            assert table.put_if_newer([(f"{7:012d}", {"PK": lease_pk(job), "SK": LEASE_SK, **gone})]) == [True]
        assert racers_that_take(table, job, 8) == 1


def racers_that_take(table, job, racers):
    """How many of racers that start at once hold the lease while all others have tried."""
    start, end = threading.Barrier(racers), threading.Barrier(racers)

    def race(number):
        start.wait()
        try:
            with Lease(table, job, f"racer {number}"):
                end.wait()
                return 1
        except LeaseHeldError:
            end.wait()
            return 0

    with ThreadPoolExecutor(racers) as pool:
        return sum(pool.map(race, range(racers)))
