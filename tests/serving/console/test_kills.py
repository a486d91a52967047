"""kill -9 of the server while operators act: no acknowledged action without its lines, and the chain is whole."""

import http.client
import json
import random
import threading
import time
from contextlib import suppress
from functools import partial

import pytest

from fan_identity.domain.audit import Outcome, unfinished
from fan_identity.io.audit import AuditLog
from fan_identity.io.backends import open_operations
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.serving.console.jobs import Jobs, JobState

from ...conftest import until_true
from .conftest import Console

LETTERS = 40
ROUNDS = 4
ACTORS = 4


class Actor(threading.Thread):
    """Reveals letters one after the other, each under a name of its own, until the server is gone."""

    def __init__(self, address, token, letters, name):
        super().__init__()
        self.connection = http.client.HTTPConnection(*address, timeout=60)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.letters = letters
        self.name = name
        self.acknowledged: list[str] = []
        self.asked: list[str] = []

    def run(self):
        with suppress(OSError, http.client.HTTPException):
            for number in range(10_000):
                request = f"{self.name}-{number}"
                self.asked.append(request)
                path = f"/console/api/dead-letters/{self.letters[number % len(self.letters)]}/reveal"
                self.connection.request("POST", path, b"{}", {**self.headers, "x-correlation-id": request})
                answer = self.connection.getresponse()
                body = answer.read()
                if answer.status == 200 and json.loads(body)["payload"]:
                    self.acknowledged.append(request)


def have_done(actors, least):
    return sum(len(actor.acknowledged) for actor in actors) >= least


def served(cli, address, out):
    serving = cli.start("serve", "--store", address, "--development", "--port", "0", "--json", out=str(out))
    serving.until(lambda: out.exists() and out.read_text().endswith("\n"), "it serves")
    return serving, json.loads(out.read_text())


@pytest.mark.slow
def test_no_acknowledged_action_is_without_its_line_however_the_server_is_killed(tmp_path, cli):
    console = Console(tmp_path)
    letters = [console.letter(number) for number in range(LETTERS)]
    SqliteDeadLetters(SqliteStore(tmp_path / "fans.db")).write(letters)
    ids = [letter.dead_letter_id for letter in letters]
    acknowledged, asked = set(), set()
    chance = random.Random(7)
    for round_ in range(ROUNDS):
        serving, told = served(cli, console.address, tmp_path / f"round-{round_}.json")
        host, port = told["address"].removeprefix("http://").split(":")
        token = told["tokens"]["operator"]
        actors = [Actor((host, int(port)), token, ids, f"round-{round_}-{number}") for number in range(ACTORS)]
        for actor in actors:
            actor.start()
        least = chance.randrange(5, 60)
        serving.until(partial(have_done, actors, least), f"{least} actions")
        time.sleep(chance.uniform(0, 0.02))  # a moment of chance, not a wait for anything
        assert serving.kill() == -9
        for actor in actors:
            actor.join()
            acknowledged |= set(actor.acknowledged)
            asked |= set(actor.asked)
    log = AuditLog.of(console.address)
    assert log.verify().whole
    lines = log.newest(None, 100_000)[::-1]
    begun = {line.request_id for line in lines if line.outcome is Outcome.BEGUN}
    ended = {line.request_id for line in lines if line.outcome is Outcome.DONE}
    assert len(acknowledged) >= ROUNDS * 5
    assert acknowledged <= begun <= asked
    assert acknowledged <= ended, "an answer is sent once the end is written"
    serving, _ = served(cli, console.address, tmp_path / "last.json")
    serving.until(lambda: not unfinished(log.newest(None, 100_000)[::-1]), "what was cut off is closed")
    serving.signal_all(15)
    assert serving.wait().code == 0
    closed = [line.request_id for line in log.newest(None, 100_000) if line.outcome is Outcome.UNKNOWN]
    assert sorted(closed) == sorted(begun - ended), "each that was cut off, once"
    assert log.verify().whole


@pytest.mark.slow
def test_a_command_goes_on_where_its_server_is_killed(tmp_path, cli):
    console = Console(tmp_path)
    console.letters.write([console.letter(number) for number in range(5)])
    serving, told = served(cli, console.address, tmp_path / "first.json")
    host, port = told["address"].removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    headers = {"Authorization": f"Bearer {told['tokens']['operator']}", "Content-Type": "application/json"}
    connection.request("POST", "/console/api/dead-letters/redrive", b'{"filter": {}, "expected": 5}', headers)
    job = json.loads(connection.getresponse().read())["job"]
    assert serving.kill() == -9
    jobs = Jobs(open_operations(console.address))
    assert jobs.get(job).state is JobState.RUNNING, "it was killed before its command had ended"
    until_true(lambda: jobs.get(job).state is not JobState.RUNNING, "the job ends")
    assert (jobs.get(job).exit_code, jobs.get(job).summary["failed"]) == (1, 5)
    until_true(lambda: not unfinished(console.audit.newest(None, 10)[::-1]), "its end is in the audit log")
    ended, begun = console.audit.newest(None, 2)
    assert (begun.outcome, ended.outcome, ended.details["failed"]) == (Outcome.BEGUN, Outcome.DONE, 5)
    assert console.audit.verify().whole
