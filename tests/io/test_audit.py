"""The audit log in a table: one chain, however many append, and nothing appended where it is damaged."""

import logging
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from fan_identity.domain.audit import AUDIT_PK, START, Entry, Fault, Outcome, audit_sk
from fan_identity.io.audit import KEY_ENV, AuditLog, audit_key
from fan_identity.io.backends import open_operations
from fan_identity.io.errors import BackendUnavailableError, UsageError


def entry(reference: str) -> Entry:
    return Entry(reference, "service:a", "flags.switch", "scoreUsers", Outcome.DONE, {"n": 1}, "q")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/operations.db"


@pytest.fixture
def log(address: str) -> AuditLog:
    return AuditLog.of(address)


def append_many(address: str, name: str, number: int) -> None:
    log = AuditLog.of(address)
    for one in range(number):
        log.append(entry(f"{name}-{one}"))


def test_lines_are_read_newest_first_by_page(log: AuditLog) -> None:
    assert (log.head(), log.newest(None, 5), log.size(), log.verify().head) == (None, [], 0, START)
    for number in range(7):
        log.append(entry(str(number)))
    assert [line.seq for line in log.newest(None, 3)] == [7, 6, 5]
    assert [line.seq for line in log.newest(3, 5)] == [2, 1]
    assert log.newest(1, 5) == []
    assert log.size() == 7
    told: list[int] = []
    assert log.verify(told.append).lines == 7
    assert told == [7]


def test_processes_that_append_at_once_make_one_chain(address: str, log: AuditLog) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append_many, args=(address, str(name), 15)) for name in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (log.verify().whole, log.verify().lines) == (True, 60)
    assert {line.reference for line in log.newest(None, 100)} == {f"{a}-{b}" for a in range(4) for b in range(15)}


def test_each_new_head_is_told_to_the_log(log: AuditLog, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        line = log.append(entry("a"))
    assert [(record.seq, record.head) for record in caplog.records] == [(1, line.hash)]  # pyright: ignore


@pytest.mark.parametrize("changed", [{"target": "x"}, {"seq": 9}, {"hash": "0" * 64}, {"more": 1}])
def test_a_changed_line_is_found(address: str, log: AuditLog, changed: dict[str, Any]) -> None:
    append_many(address, "a", 5)
    table = open_operations(address)
    item = table.get(AUDIT_PK, audit_sk(3))
    assert item is not None
    table.put({**item, **changed})
    assert log.verify().seq == 3


def test_a_removed_line_is_found_and_a_cut_tail_by_the_head(address: str, log: AuditLog) -> None:
    append_many(address, "a", 5)
    head = log.head()
    table = open_operations(address)
    table.batch_delete([(AUDIT_PK, audit_sk(5))])
    assert head is not None
    assert log.verify().whole
    assert log.verify(head=head.hash).fault is Fault.OTHER_HEAD
    table.batch_delete([(AUDIT_PK, audit_sk(2))])
    assert (log.verify().seq, log.verify().fault) == (2, Fault.MISSING)


@pytest.mark.parametrize("sk", ["zzz", "9" * 15, "0000000000000005"])
def test_a_stray_item_at_the_end_is_found_and_nothing_is_appended_to_it(address: str, log: AuditLog, sk: str) -> None:
    append_many(address, "a", 5)
    table = open_operations(address)
    table.put({"PK": AUDIT_PK, "SK": sk, "type": "audit"})
    if sk < audit_sk(5):
        assert log.verify().whole, "a sort key that is none of a line's, between them, is no line"
        return
    assert (log.verify().seq, log.verify().lines) == (6, 5)
    with pytest.raises(BackendUnavailableError, match="damaged"):
        log.append(entry("b"))


def test_a_key_is_long_enough_and_makes_hmacs(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, "short")
    with pytest.raises(UsageError, match=KEY_ENV):
        audit_key()
    monkeypatch.setenv(KEY_ENV, "k" * 32)
    keyed = AuditLog.of(address)
    assert keyed.append(entry("a")).keyed
    assert keyed.verify().whole
    monkeypatch.delenv(KEY_ENV)
    assert AuditLog.of(address).verify().fault is Fault.NO_KEY
