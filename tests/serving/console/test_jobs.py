"""Jobs and their runner: no shell, a time limit, an end that is written whatever happens, and what is closed later."""

import json
import subprocess
import sys
import time

import msgspec
import pytest

from fan_identity.domain.audit import Entry, Fault, Outcome, audit_sk
from fan_identity.io.audit import AuditLog
from fan_identity.io.backends import open_operations
from fan_identity.io.clock import now_ms
from fan_identity.io.process_marks import process_mark
from fan_identity.serving.console.audit import Verifying
from fan_identity.serving.console.jobs import LONGEST_SECONDS, Job, JobKind, Jobs, JobState, new_job_id
from fan_identity.serving.console.recording import close_unfinished
from fan_identity.serving.console.runner import Ended, end_of, finished_job, run
from fan_identity.serving.console.threads import Threads

HERE = process_mark()


@pytest.fixture
def table(tmp_path):
    return open_operations(f"sqlite:///{tmp_path}/operations.db")


@pytest.fixture
def jobs(table):
    return Jobs(table)


@pytest.fixture
def audit(table):
    return AuditLog(table)


def job(**changed):
    fields = {
        "job": new_job_id(),
        "kind": JobKind.REDRIVE,
        "reference": "r1",
        "subject": "service:a",
        "action": "deadLetters.redrive",
        "target": "t",
        "request_id": "q",
        "started_at": now_ms(),
    }
    return Job(**{**fields, **changed})


def gone():
    """The mark of a process that has ended."""
    code = "from fan_identity.io.process_marks import process_mark; print(process_mark())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def begun(audit, reference="r1", process=HERE, **details):
    told = {**details, "process": process}
    return audit.append(Entry(reference, "service:a", "flags.switch", "scoreUsers", Outcome.BEGUN, told, "q"))


def test_the_first_end_of_a_job_stays(jobs):
    one = job()
    jobs.add(one)
    jobs.claim(msgspec.structs.replace(one, process=HERE))
    done = msgspec.structs.replace(one, state=JobState.DONE, ended_at=5)
    assert jobs.end(done)
    assert jobs.end(done), "the same end told again is no other one"
    assert not jobs.end(msgspec.structs.replace(one, state=JobState.FAILED, ended_at=6))
    assert jobs.get(one.job) == done
    assert jobs.get("20000101T000000000Z-00000000") is None


def test_one_of_a_kind_runs(jobs):
    lost, other = job(process=gone()), job(kind=JobKind.ROLLBACK)
    for one in (lost, other):
        jobs.add(one)
    assert jobs.running(JobKind.REDRIVE) is None
    assert jobs.running(JobKind.ROLLBACK) == other
    running = job(process=HERE)
    jobs.add(running)
    assert jobs.running(JobKind.REDRIVE) == running
    assert {one.job for one in jobs.recent()} == {lost.job, other.job, running.job}


def test_a_job_is_lost_where_its_runner_is_gone_or_never_came(jobs):
    now = now_ms()
    assert not job().is_lost(now)
    assert job(started_at=now - 61_000).is_lost(now)
    assert not job(started_at=now - 61_000, process=HERE).is_lost(now)
    assert not job(started_at=now - 61_000, process="elsewhere pid:[1] 7 8").is_lost(now)
    assert job(started_at=now - LONGEST_SECONDS * 1_000 - 121_000, process="elsewhere pid:[1] 7 8").is_lost(now)
    assert job(process=gone()).is_lost(now)
    assert not job(process=gone(), state=JobState.DONE).is_lost(now)


def test_a_command_is_run_without_a_shell_and_its_output_kept_to_the_end():
    code = "import sys; print('x' * 200_000); print(sys.argv[1]); print('why', file=sys.stderr); sys.exit(3)"
    ended = run([sys.executable, "-c", code, "$(id); `id` && x"])
    assert (ended.exit_code, ended.errors) == (3, b"why\n")
    assert ended.output.splitlines()[-1] == b"$(id); `id` && x"
    assert len(ended.output) == 65_536


def test_a_command_that_takes_too_long_is_asked_to_stop_and_nothing_of_it_stays():
    child = "import time; time.sleep(600)"
    code = (
        "import signal, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    began = time.monotonic()
    ended = run([sys.executable, "-c", code], seconds=3)
    assert ended.exit_code == 130
    assert time.monotonic() - began < 500
    pid = int(ended.output)
    while state_of(pid) not in ("", "Z"):  # killed; the system takes it away when it comes to that
        assert time.monotonic() - began < 500


def state_of(pid):
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip()[:1]


@pytest.mark.parametrize(
    ("ended", "state", "outcome", "problem"),
    [
        (Ended(0, b'{"queued": 3, "settings": {"a": "b"}}\n', b""), JobState.DONE, Outcome.DONE, ""),
        (Ended(1, b'noise\n{"queued": 3}\n', b"some failed"), JobState.DONE, Outcome.DONE, ""),
        (Ended(1, b'{"note": "/a/path", "counts": {"queued": 3, "x": "y"}}', b""), JobState.DONE, Outcome.DONE, ""),
        (Ended(2, b"", b"x\nerror: 3 letters match\n"), JobState.FAILED, Outcome.FAILED, "it was refused"),
        (Ended(3, b"", b"error: /a/path is away"), JobState.FAILED, Outcome.FAILED, "a part is out of reach"),
        (Ended(7, b"", b"Traceback ...\nKeyError: secret"), JobState.FAILED, Outcome.FAILED, "it failed"),
        (Ended(None, b"[1]", b""), JobState.FAILED, Outcome.UNKNOWN, "it was killed"),
    ],
)
def test_how_a_command_ended_is_how_its_job_and_its_action_did(caplog, ended, state, outcome, problem):
    """What it said, which names addresses and paths, goes to the log and nowhere else."""
    finished = finished_job(job(), ended)
    assert (finished.state, finished.exit_code) == (state, ended.exit_code)
    assert finished.problem.split(":")[0].split(",")[0] == problem
    told = [getattr(record, "problem", None) for record in caplog.records]
    assert told == (
        [] if state is JobState.DONE else [ended.errors.decode().strip().split("\n")[-1].removeprefix("error: ")]
    )
    assert finished.summary == ({"queued": 3} if b"queued" in ended.output else {})
    entry = end_of(finished)
    assert (entry.outcome, entry.reference) == (outcome, "r1")
    assert entry.details.get("queued") == finished.summary.get("queued")


def test_actions_of_killed_processes_are_closed_and_those_under_way_are_not(table, jobs, audit):
    begun(audit, "alive")
    begun(audit, "killed", gone())
    begun(audit, "elsewhere", "other pid:[1] 7 8")
    begun(audit, "ended")
    audit.append(Entry("ended", "service:a", "flags.switch", "scoreUsers", Outcome.DONE))
    assert close_unfinished(audit, jobs, table) == 2
    line = audit.newest(None, 1)[0]
    assert (line.reference, line.outcome) == ("killed", Outcome.UNKNOWN)
    assert close_unfinished(audit, jobs, table) == 2
    assert audit.newest(None, 1)[0] == line, "once"


def test_an_action_is_closed_by_the_result_of_its_job(table, jobs, audit):
    done, lost, running = (
        job(reference="done"),
        job(reference="lost", process=gone()),
        job(reference="runs", process=HERE),
    )
    for one in (done, lost, running):
        begun(audit, one.reference, gone(), job=one.job)
        jobs.add(one)
    jobs.end(finished_job(done, Ended(0, b'{"queued": 3}', b"")))
    assert close_unfinished(audit, jobs, table) == 1
    closed = {line.reference: line for line in audit.newest(None, 2)}
    assert (closed["done"].outcome, closed["done"].details["queued"]) == (Outcome.DONE, 3)
    assert closed["lost"].outcome is Outcome.UNKNOWN
    told = jobs.get(lost.job)
    assert (told.state, told.exit_code) == (JobState.FAILED, None)
    assert audit.verify().whole


def test_a_runner_writes_the_end_by_itself(tmp_path, jobs, audit):
    """Started as the server does, with nobody left who waits for it."""
    address = f"sqlite:///{tmp_path}/operations.db"
    one = job()
    jobs.add(one)
    order = {"operations": address, "job": msgspec.to_builtins(one), "arguments": ["--version"]}
    module = "fan_identity.serving.console.runner"
    subprocess.run([sys.executable, "-m", module], input=json.dumps(order).encode(), check=True, timeout=300)
    ended = jobs.get(one.job)
    assert (ended.state, ended.exit_code, bool(ended.process)) == (JobState.DONE, 0, True)
    assert audit.newest(None, 1)[0].outcome is Outcome.DONE


def test_a_runner_that_is_told_half_an_order_does_nothing(tmp_path, jobs):
    module = "fan_identity.serving.console.runner"
    ended = subprocess.run(
        [sys.executable, "-m", module], input=b'{"operations": "sq', check=False, capture_output=True
    )
    assert ended.returncode != 0
    assert jobs.recent() == []


def test_a_job_that_was_declared_lost_is_not_run_any_more(tmp_path, jobs, audit):
    one = job()
    jobs.add(one)
    lost = msgspec.structs.replace(one, state=JobState.FAILED, ended_at=5)
    jobs.end(lost)
    audit.append(end_of(lost))
    order = {
        "operations": f"sqlite:///{tmp_path}/operations.db",
        "job": msgspec.to_builtins(one),
        "arguments": ["--version"],
    }
    module = "fan_identity.serving.console.runner"
    subprocess.run([sys.executable, "-m", module], input=json.dumps(order).encode(), check=True, timeout=300)
    assert jobs.get(one.job) == lost
    assert [line.seq for line in audit.newest(None, 5)] == [1], "it has one end"


@pytest.fixture
def verifying(table, jobs, audit):
    return Verifying(audit, lambda: close_unfinished(audit, jobs, table), Threads())


def checked(verifying, *, whole_is_due=False):
    if whole_is_due:
        verifying._whole_read_at = -1e9
    verifying._check()
    return verifying.verdict


def test_the_chain_is_checked_where_it_grew_and_the_whole_of_it_now_and_then(table, audit, verifying):
    assert (checked(verifying).whole, verifying.verdict.lines) == (True, 0)
    begun(audit, "killed", gone())
    assert (checked(verifying).whole, verifying.verdict.lines) == (True, 2)
    table.put({**table.get("AUDIT", audit_sk(1)), "target": "x"})
    begun(audit, "more")
    assert (checked(verifying).whole, verifying.verdict.lines) == (True, 3), "only what is new is read"
    for _ in range(2):  # and it stays broken
        assert (checked(verifying, whole_is_due=True).whole, verifying.verdict.seq) == (False, 1)
    assert (checked(verifying).whole, verifying.verdict.seq) == (False, 1)


def test_a_changed_line_among_the_new_ones_is_found(table, audit, verifying):
    begun(audit, "a")
    checked(verifying)
    begun(audit, "b")
    table.put({**table.get("AUDIT", audit_sk(2)), "target": "x"})
    assert (checked(verifying).seq, verifying.verdict.fault) == (2, Fault.CHANGED)


@pytest.mark.parametrize("whole_is_due", [False, True])
@pytest.mark.parametrize("grown", [0, 1, 3])
def test_a_tail_that_is_cut_off_while_the_server_runs_is_noticed(table, audit, verifying, grown, whole_is_due):
    for number in range(4):
        begun(audit, str(number))
    assert checked(verifying).whole
    table.batch_delete([("AUDIT", audit_sk(3)), ("AUDIT", audit_sk(4))])
    for number in range(grown):
        begun(audit, f"new {number}")
    assert not checked(verifying, whole_is_due=whole_is_due).whole
    assert not checked(verifying).whole, "and it is not forgotten"


def test_a_log_older_than_its_key_is_whole_from_the_key_on_and_stays_so(table, jobs):
    begun(AuditLog(table), "old")
    keyed = AuditLog(table, b"k" * 32)
    verifying = Verifying(keyed, lambda: close_unfinished(keyed, jobs, table), Threads())
    assert (checked(verifying).whole, verifying.verdict.unkeyed) == (True, 1)
    begun(keyed, "new")
    begun(keyed, "newer")
    for due in (False, True):
        verdict = checked(verifying, whole_is_due=due)
        assert (verdict.whole, verdict.unkeyed, verdict.lines) == (True, 1, 3)
    # Somebody without the key writes the keyed lines anew: the boundary that was seen stays.
    table.batch_delete([("AUDIT", audit_sk(2)), ("AUDIT", audit_sk(3))])
    forged = AuditLog(table)
    for name in ("forged", "forged too", "and more"):
        begun(forged, name)
    begun(keyed, "the server goes on")
    for due in (False, True):
        assert not checked(verifying, whole_is_due=due).whole
