"""Both halves on Apache Flink: a real JobManager and TaskManager, killed, stopped and resumed.

``make flink`` gets and starts the cluster (docs/running-on-flink.md); where its jars are there, the tests start what
does not run and stop that again. Each test prints its ledger: what was lost, out of order, stale or doubled.
"""

import importlib.util
import io
import json
import os
import shutil
import signal
import sys
import time
from collections import defaultdict
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from fan_identity.domain.keys import arm_cache_key
from fan_identity.io.backends import open_cache

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "deploy" / "flink" / "run.py"
USERS = 100
NUMBER = 5_000
PATIENCE = 240.0
"""Seconds: a job needs half a minute to come to life on a busy machine, one that was killed more."""

RUNNING = ("RUNNING",)
ALIVE = ("INITIALIZING", "CREATED", "RUNNING", "RESTARTING", "FAILING")
ENDED = ("FINISHED", "CANCELED", "FAILED")


def until(condition, what):
    """Asks until the condition is true and returns what it said."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE:.0f} s in vain: {what}", pytrace=False)
        time.sleep(0.1)
    return found


def load(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location("flink_run", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


class Flink:
    """The cluster, over its REST interface and its processes."""

    def __init__(self, run) -> None:
        self.run = run
        self.parts = run.BY_NAME
        self.rest = httpx.Client(base_url=f"http://127.0.0.1:{self.parts['flink-jobmanager'].port}", timeout=60)
        self.job_names = set()

    def beam(self, job_name, *more, server="beam-jobserver", environment="EXTERNAL"):
        """Beam's flags, after ``--``."""
        self.job_names.add(job_name)
        workers = f"--environment_config=localhost:{self.parts['beam-workers'].port}"
        return (
            "--",
            "--runner=PortableRunner",
            f"--job_endpoint=localhost:{self.parts[server].port}",
            f"--environment_type={environment}",
            *([workers] if environment == "EXTERNAL" else []),
            "--parallelism=1",
            "--max_bundle_time_mills=50",
            # With checkpoints a job does not end by itself, as a drained one must.
            *(["--checkpointing_interval=3000"] if environment == "EXTERNAL" else []),
            f"--job_name={job_name}",
            *more,
        )

    def start(self, *parts):
        with redirect_stdout(io.StringIO()):
            assert self.run.start(parts or self.run.PARTS), "the cluster does not start"

    def jobs(self, states, names=None):
        """The ids of the jobs of these names that are in one of these states, newest first."""
        found = self.rest.get("/jobs/overview").raise_for_status().json()["jobs"]
        mine = [job for job in found if job["name"] in (self.job_names if names is None else names)]
        return [job["jid"] for job in sorted(mine, key=lambda job: -job["start-time"]) if job["state"] in states]

    def checkpoints(self, job):
        return self.rest.get(f"/jobs/{job}/checkpoints").raise_for_status().json()

    def stop_with_savepoint(self, job):
        """Ends a job in order; the savepoint's address. Asks again where the job was just being restarted."""

        def asked():
            answer = self.rest.post(f"/jobs/{job}/stop", json={"drain": False})
            if answer.is_error:
                return None
            request = answer.json()["request-id"]

            def done():
                told = self.rest.get(f"/jobs/{job}/savepoints/{request}").raise_for_status().json()
                return told["operation"] if told["status"]["id"] == "COMPLETED" else None

            return until(done, f"a savepoint of {job}").get("location")

        return until(asked, f"{job} is stopped with a savepoint")

    def cancel(self):
        """Ends the jobs of this test, whatever became of them."""
        for job in self.jobs(ALIVE):
            self.rest.patch(f"/jobs/{job}", params={"mode": "cancel"})
        until(lambda: not self.jobs((*ALIVE, "CANCELLING")), "the jobs end")

    def workers(self):
        """The process ids of Beam's Python workers: the pool's children."""
        pool = self.run.running(self.parts["beam-workers"].run, self.parts["beam-workers"].mark)
        children = Path(f"/proc/{pool}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split() if is_alive(int(pid))]

    def log(self, name, most=3_000):
        return (self.parts[name].run / "log").read_text(errors="replace")[-most:]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def cluster():
    run = load(SCRIPT)
    required = os.environ.get("FAN_IDENTITY_REQUIRE_SERVICES", "").replace(" ", "").split(",")
    skip = pytest.fail if {"flink", "all"} & set(required) else pytest.skip
    if shutil.which("java") is None:
        skip("no Java on PATH: Flink runs on it")
    for part in run.PARTS:
        if part.recipe is not None and not (part.folder / ".complete").is_file():
            skip(f"no jars of {part.program}: make flink gets them")
    stopped = [part for part in run.PARTS if not part.probe(part.port)]
    yield run
    with redirect_stdout(io.StringIO()):
        run.stop(stopped)


@pytest.fixture
def flink(cluster):
    made = Flink(cluster)
    made.start()  # what does not run, or what an earlier test killed
    yield made
    made.cancel()


@pytest.fixture
def remote(server, system, upstreams):
    """The settings of a system on real servers."""
    for name in ("kafka", "elasticmq", "dynamodb", "redis"):
        server(name)
    table = system.table()
    system.use(
        queue=system.queue(),
        table=table,
        dead_letters=table,
        cache="redis://127.0.0.1:16390/0",
        accounts=f"{upstreams.address}/accounts",
        model=f"{upstreams.address}/model/score?batch=64",
        batch_size="100",
        visibility_timeout="30s",
    )
    return system


def activities(first, last, begin, prefix):
    """Activities by time, each user's every 100th, with the key they travel under.

    Users are of one test only: all tests write into one Redis, where the newest wins.
    """
    users = [f"{prefix}-{n % USERS}" for n in range(first, last)]
    facts = {"activityType": "login"}
    return [
        (user, json.dumps({**facts, "activityId": f"a{n}", "occurredAt": begin + n, "globalUserId": user}).encode())
        for n, user in zip(range(first, last), users, strict=True)
    ]


@dataclass
class Halves:
    """Both halves of a system as two jobs of one cluster."""

    cli: object
    system: object
    flink: Flink
    topic: str
    names: tuple[str, str]
    begin: int

    def start(self, savepoints=(None, None)):
        """Submits both; the commands that wait for them."""
        env = self.system.env
        resumed = [() if savepoint is None else (f"--savepoint_path={savepoint}",) for savepoint in savepoints]
        commands = (
            ("enqueueFromStream", "--source", self.topic, "--streaming", "--json"),
            ("scoreUsers", "--streaming", "--json"),
        )
        return [
            self.cli.start("run", *command, *self.flink.beam(name, *more), env=env)
            for command, name, more in zip(commands, self.names, resumed, strict=True)
        ]

    def produce(self, first, last):
        self.system.produce(self.topic, activities(first, last, self.begin, self.names[0]))

    def scored(self):
        return len(self.system.items(self.system.settings["table"]))

    def until(self, condition, what, commands):
        """Waits while both commands run; tells the logs where one ends before."""

        def met():
            ended = [command for command in commands if command.code is not None]
            found = condition()
            assert found or not ended, (what, [command.err for command in ended], self.flink.log("flink-taskmanager"))
            return found

        return until(met, what)

    def jobs(self, states=RUNNING):
        """The newest job of each half in one of these states."""
        found = [self.flink.jobs(states, [name])[:1] for name in self.names]
        return [job for jobs in found for job in jobs]

    def completed_checkpoints(self):
        return [self.flink.checkpoints(job)["counts"]["completed"] for job in self.jobs()]

    def ledger(self, number, name):
        """Counts what went wrong, prints it, and fails where anything did."""
        table = self.system.settings["table"]
        items = self.system.items(table)
        latest = {item["globalUserId"]: item["scoreSK"] for item in self.system.items(table, "LATEST")}
        cache = open_cache(self.system.settings["cache"])
        by_user = defaultdict(list)
        for item in items:  # by the time of their activities
            by_user[item["globalUserId"]].append(item)
        ids = [item["activityId"] for item in items]
        stale = 0
        for user, scores in by_user.items():
            entry = cache.get(arm_cache_key(user))
            newest = scores[-1]
            expected = (newest["SK"], newest["armRisk"], number - USERS + int(user.rpartition("-")[2]) + self.begin)
            stale += (latest[user], entry["arm_risk"], entry["timestamp"]) != expected
        books = {
            "lost": number - len(set(ids)),
            "out of order": sum(
                before["dateUpdated"] > after["dateUpdated"]
                for scores in by_user.values()
                for before, after in pairwise(scores)
            ),
            "stale overwrites": stale,
            "duplicate effects": len(ids) - len(set(ids)),
            "dead letters": len(self.system.items(table, "PART#")),
            "left in the queue": self.system.depth(self.system.settings["queue"]),
        }
        text = ", ".join(f"{what} {count}" for what, count in books.items())
        sys.stdout.write(f"\nledger of {name}, {number} activities of {len(by_user)} users: {text}\n")
        assert not any(books.values()), text
        assert len(by_user) == len(latest) == USERS


@pytest.fixture
def halves(cli, remote, flink, unique):
    name = unique("flink")
    names = (f"{name}-enqueue", f"{name}-score")
    begin = time.time_ns() // 1_000_000 - 600_000
    return Halves(cli, remote, flink, remote.topic(), names, begin)


def all_done(halves, number=NUMBER):
    return lambda: halves.scored() == number and halves.system.depth(halves.system.settings["queue"]) == 0


def half_way(halves):
    """Both halves run, with a checkpoint behind them and half of the work before them; the commands and the jobs."""
    halves.produce(0, NUMBER // 2)
    commands = halves.start()
    halves.until(lambda: halves.scored() > 0, "one is scored", commands)
    halves.until(
        lambda: len(counts := halves.completed_checkpoints()) == 2 and min(counts) > 0, "a checkpoint of each", commands
    )
    halves.produce(NUMBER // 2, NUMBER)
    return commands, halves.jobs()


def restored(halves, jobs):
    return min(halves.flink.checkpoints(job)["counts"]["restored"] for job in jobs)


def test_both_halves_stream_and_go_on_when_the_command_is_left(halves):
    commands = halves.start()
    halves.produce(0, NUMBER // 2)
    halves.until(lambda: halves.scored() > 0, "one is scored", commands)
    for command, number in zip(commands, (signal.SIGINT, signal.SIGTERM), strict=True):
        command.signal(number)
        left = command.wait(PATIENCE)
        assert left.code == 0, left
        assert "goes on on the cluster" in left.err and "--savepointPath" in left.err
        assert left.json["goes_on"] == 1
    halves.produce(NUMBER // 2, NUMBER)
    until(all_done(halves), "all are scored")
    assert len(halves.jobs(ALIVE)) == 2
    halves.ledger(NUMBER, "both halves on Flink")


def test_python_workers_killed(halves):
    commands, jobs = half_way(halves)
    workers = halves.flink.workers()
    assert len(workers) >= 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    halves.until(lambda: restored(halves, jobs) > 0, "both go on from a checkpoint", commands)
    halves.until(all_done(halves), "all are scored", commands)
    assert halves.jobs(ALIVE) == jobs, "the same jobs, none new"
    halves.ledger(NUMBER, "kill -9 of the Python workers")


def test_taskmanager_killed(halves):
    commands, jobs = half_way(halves)
    part = halves.flink.parts["flink-taskmanager"]
    assert halves.flink.run.kill9(part)
    halves.flink.start(part)
    halves.until(lambda: restored(halves, jobs) > 0, "both go on from a checkpoint", commands)
    halves.until(all_done(halves), "all are scored", commands)
    assert halves.jobs(ALIVE) == jobs, "the same jobs, none new"
    halves.ledger(NUMBER, "kill -9 of the TaskManager")


def test_stopped_with_savepoints_and_resumed(halves):
    flink = halves.flink
    first, jobs = half_way(halves)
    savepoints = [flink.stop_with_savepoint(job) for job in jobs]
    counts = [command.wait(PATIENCE) for command in first]
    assert [result.code for result in counts] == [0, 0], counts
    read = counts[0].json["read"]
    assert halves.jobs(ALIVE) == []
    halves.produce(NUMBER, NUMBER + 500)
    second = halves.start(savepoints)
    halves.until(all_done(halves, NUMBER + 500), "all are scored", second)
    resumed = halves.jobs(ALIVE)
    assert all(path in flink.log("flink-jobmanager", 10_000_000) for path in savepoints)
    flink.stop_with_savepoint(resumed[0])
    enqueued = second[0].wait(PATIENCE).json
    assert halves.jobs(ALIVE) == resumed[1:], "one job's end is not the other's"
    if (restored(halves, jobs[:1]), restored(halves, resumed[:1])) == (0, 1):  # else something failed besides
        assert (read + enqueued["read"], enqueued.get("deduplicated", 0)) == (NUMBER + 500, 0), "nothing is read twice"
    flink.stop_with_savepoint(resumed[1])
    assert second[1].wait(PATIENCE).code == 0
    until(lambda: not flink.workers(), "the workers end with their jobs")
    halves.ledger(NUMBER + 500, "savepoint and resume")


def test_a_job_cancelled_elsewhere_ends_the_command_in_one_line(halves):
    name = halves.names[0]
    command = halves.cli.start(
        *("run", "enqueueFromStream", "--source", halves.topic, "--streaming"),
        *halves.flink.beam(name),
        env=halves.system.env,
    )
    until(lambda: halves.flink.jobs(RUNNING), "the job runs")
    halves.flink.cancel()
    ended = command.wait(PATIENCE)
    assert ended.code == 3, ended
    assert "error: the job did not end well" in ended.err_lines[-1]
    assert "Traceback" not in ended.err


def test_a_bounded_run_on_the_cluster(halves):
    halves.produce(0, 500)
    env, flink = halves.system.env, halves.flink
    counts = [
        halves.cli.start("run", *command, "--json", *flink.beam(name), env=env).wait(PATIENCE)
        for command, name in zip(
            (("enqueueFromStream", "--source", halves.topic), ("scoreUsers",)), halves.names, strict=True
        )
    ]
    assert [result.code for result in counts] == [0, 0], counts
    assert (counts[0].json["enqueued"], counts[1].json["scored"]) == (500, 500)
    halves.ledger(500, "bounded runs on Flink")


def test_workers_in_this_process_drain_on_ctrl_c(halves):
    """Flink inside the job server and workers in the command, as a first try on a laptop would have it."""
    halves.produce(0, 1_000)
    flags = halves.flink.beam(halves.names[0], server="beam-jobserver-local", environment="LOOPBACK")
    arguments = ("run", "enqueueFromStream", "--source", halves.topic, "--streaming", "--json")
    command = halves.cli.start(*arguments, *flags, env=halves.system.env)
    queue = halves.system.settings["queue"]
    halves.until(lambda: halves.system.depth(queue) == 1_000, "all are queued", [command])
    command.signal(signal.SIGINT)
    drained = command.wait(PATIENCE)
    assert drained.code == 0, drained
    assert drained.json["enqueued"] == 1_000
    assert "stop it with Ctrl-C" in drained.err


def test_a_flag_the_job_server_does_not_know_is_refused(halves):
    flags = halves.flink.beam(halves.names[0], "--max_bundle_time_millis=50")
    command = halves.cli.start(
        "run", "enqueueFromStream", "--source", halves.topic, "--streaming", *flags, env=halves.system.env
    )
    refused = command.wait(PATIENCE)
    assert refused.code == 2, refused
    assert "did you mean --max_bundle_time_mills?" in refused.err_lines[-1]
    assert halves.flink.jobs((*ALIVE, *ENDED)) == []
