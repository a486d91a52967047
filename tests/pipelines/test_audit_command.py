"""``fan-identity audit``: what it lists, what it finds, and how it ends."""

import json
from pathlib import Path

import pytest

from fan_identity.domain.audit import AUDIT_PK, Entry, Outcome, audit_sk
from fan_identity.io.audit import KEY_ENV, AuditLog
from fan_identity.io.backends import open_operations


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/fans.db"


def filled(address: str, lines: int = 5) -> AuditLog:
    log = AuditLog.of(address)
    for number in range(lines):
        log.append(Entry(f"r{number}", "service:a", "flags.switch", "scoreUsers", Outcome.DONE, {"n": number}, "q"))
    return log


def test_lines_are_listed_newest_first(cli, address):
    filled(address)
    listed = [json.loads(line) for line in cli("audit", "list", "--store", address, "--json").out.splitlines()]
    assert [line["seq"] for line in listed] == [5, 4, 3, 2, 1]
    assert b"scoreUsers" in cli("audit", "list", "--store", address, "--limit", "1").out


def test_a_whole_log_is_told_with_its_head(cli, address):
    head = filled(address).head()
    answer = cli("audit", "verify", "--store", address, "--json")
    assert answer.code == 0
    told = {"whole": True, "lines": 5, "head": head.hash, "seq": None, "fault": None, "keyedFrom": None}
    assert json.loads(answer.out) == told
    assert cli("audit", "verify", "--store", address, "--head", head.hash, "--count", "5").code == 0


def test_a_broken_log_is_told_with_its_line_and_ends_with_1(cli, address):
    head = filled(address).head()
    table = open_operations(address)
    table.put({**table.get(AUDIT_PK, audit_sk(3)), "subject": "service:b"})
    answer = cli("audit", "verify", "--store", address, "--json")
    told = json.loads(answer.out)
    assert (answer.code, told["whole"], told["seq"], told["lines"]) == (1, False, 3, 2)
    assert "BROKEN at line 3" in cli("audit", "verify", "--store", address).err
    table.batch_delete([(AUDIT_PK, audit_sk(number)) for number in (3, 4, 5)])
    assert cli("audit", "verify", "--store", address).code == 0, "a cut tail needs a head noted elsewhere"
    answer = cli("audit", "verify", "--store", address, "--head", head.hash)
    assert (answer.code, "tail was cut" in answer.err) == (1, True)
    assert cli("audit", "verify", "--store", address, "--count", "5").code == 1


def test_usage(cli, address):
    assert "does not exist" in cli("audit", "verify", "--store", address).err
    filled(address)
    assert cli("audit", "verify", "--store", address, "--head", "5d41").code == 2
    assert cli("audit", "verify").code == 2
    assert cli("audit", "list", "--operations", "kafka://x/y").code == 2
    keyed = {KEY_ENV: "k" * 40}
    answer = cli("audit", "verify", "--store", address, env=keyed)
    assert (answer.code, "not keyed" in answer.err) == (1, True)
    answer = cli("audit", "verify", "--store", address, "--keyed-from", "6", env=keyed)
    assert (answer.code, "lines 1 to 5 are older than the key" in answer.err) == (0, True)
