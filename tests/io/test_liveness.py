"""Telling of outages: once, by whatever checker, over kills, a table that is away and a webhook in trouble."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fan_identity.domain.liveness import CLAIM_MS, RESOLVE, TRIGGER, Probed
from fan_identity.io import alerts, liveness, outages
from fan_identity.io.alerts import Webhook
from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.liveness import Teller, TellerThread
from fan_identity.io.outages import OutageBook, local_place
from fan_identity.io.ports import Table
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

from ..webhook import Receiver

DOWN = Probed("table", "dynamodb://fans", False, 0.1, "--table: dynamodb://fans is out of reach")
UP = Probed("table", "dynamodb://fans", True, 0.1)
T0 = 1_795_000_000_000


class Checker:
    """A checker over a table of its own or a shared one, with a clock that tests move."""

    def __init__(self, folder: Path, url: str, table: Callable[[], Table] | None = None) -> None:
        self.now = T0
        self.said: list[str] = []
        self.folder = folder
        self.operations = SqliteTable(SqliteStore(folder / "operations.db"), "operations")
        book = OutageBook(table or (lambda: self.operations), folder / "private" / "local.db", 2.0, self.said.append)
        self.teller = Teller(book, Webhook(url), "d", "operations", self.said.append, lambda: self.now)

    def round(self, *probed: Probed) -> int:
        self.now += 15_000
        return self.teller.tell(probed)


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made


@pytest.fixture
def checker(tmp_path: Path, receiver: Receiver) -> Checker:
    return Checker(tmp_path, receiver.url)


def test_an_outage_is_told_once_and_its_end_once(checker, receiver):
    for probed in (UP, DOWN, DOWN, DOWN, UP, UP, UP):
        checker.round(probed)
    assert receiver.actions() == [("table", TRIGGER), ("table", RESOLVE)]
    assert checker.said == []


def test_two_checkers_tell_once(tmp_path, receiver):
    """As two schedules, or a schedule and a Lambda: the same table, the same rounds."""
    one, other = Checker(tmp_path, receiver.url), Checker(tmp_path, receiver.url)
    for probed in (DOWN, DOWN, UP, UP):
        one.round(probed)
        other.round(probed)
    assert receiver.actions() == [("table", TRIGGER), ("table", RESOLVE)]


def _tell_once(folder: Path, url: str, gate: Any) -> None:
    checker = Checker(folder, url)
    gate.wait()
    checker.round(DOWN)


def test_checkers_in_the_same_moment_tell_once(tmp_path, receiver):
    SqliteStore(tmp_path / "operations.db").connection.close()
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    checkers = [context.Process(target=_tell_once, args=(tmp_path, receiver.url, gate)) for _ in range(3)]
    for one in checkers:
        one.start()
    for one in checkers:
        one.join(60)
        assert one.exitcode == 0
    assert receiver.actions() == [("table", TRIGGER)]


@pytest.mark.parametrize("mood", ["500", "hang", "redirect", "reset"])
def test_what_the_webhook_does_not_take_is_told_at_the_next_round(checker, receiver, monkeypatch, mood):
    receiver.mood = mood
    other = Probed("cache", "redis://h/0", False, 0.1, "--cache: redis://h/0 is out of reach")
    with monkeypatch.context() as patch:
        if mood == "hang":
            patch.setattr(alerts, "_SECONDS", 0.5)
        assert checker.round(DOWN, other) == 0
    receiver.wait_for(len, "the webhook was never asked")
    assert len(receiver.requests) == 1, "one failure is enough for a round"
    assert len(checker.said) == 1 and "the next round tries again" in checker.said[0]
    assert "secret" not in checker.said[0]
    receiver.mood = "ok"
    assert checker.round(DOWN, other) == 2
    assert receiver.actions()[1:] == [("table", TRIGGER), ("cache", TRIGGER)]
    assert checker.round(DOWN, other) == 0


def test_a_slow_webhook_gets_what_a_round_has_time_for_and_the_rest_later(checker, receiver, monkeypatch):
    many = [Probed(f"part{number}", "", False, 0.1, "away") for number in range(4)]
    monkeypatch.setattr(liveness, "_SENDING_SECONDS", 0.0)
    assert checker.round(*many) == 0
    monkeypatch.undo()
    assert checker.round(*many) == 4
    assert receiver.actions() == [(one.part, TRIGGER) for one in many]


def test_an_outage_that_ended_before_it_could_be_told_is_told_all_the_same(checker, receiver):
    receiver.mood = "500"
    for probed in (DOWN, UP, UP, UP):
        checker.round(probed)
    receiver.mood = "ok"
    receiver.requests.clear()
    checker.round(UP)
    assert receiver.actions() == [("table", TRIGGER), ("table", RESOLVE)]


def _tell_and_be_killed(folder: Path, url: str, moment: str) -> None:
    """Is killed as soon as the webhook has the notice, or just before it would be sent."""
    checker = Checker(folder, url)
    send = Webhook.send

    def killed(self: Webhook, notice: Any) -> None:
        if moment == "after":
            send(self, notice)
        os.kill(os.getpid(), signal.SIGKILL)

    Webhook.send = killed
    checker.round(DOWN)


@pytest.mark.parametrize(("moment", "expected"), [("before", 1), ("after", 2)])
def test_a_checker_killed_between_sending_and_noting_it_costs_one_repetition(tmp_path, receiver, moment, expected):
    killed = multiprocessing.get_context("spawn").Process(
        target=_tell_and_be_killed, args=(tmp_path, receiver.url, moment)
    )
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    checker = Checker(tmp_path, receiver.url)
    for _ in range(5):
        checker.round(DOWN)
    assert receiver.actions() == [("table", TRIGGER)] * expected
    assert len({request.json["dedup_key"] for request in receiver.requests}) == 1


def test_what_a_checker_elsewhere_took_to_send_is_told_by_another_once_that_is_late(checker, receiver, monkeypatch):
    """Nobody can tell from here whether a process of another machine still runs."""
    monkeypatch.setattr(Webhook, "send", _never_sends)
    with pytest.raises(KeyboardInterrupt):
        checker.round(DOWN)
    monkeypatch.undo()
    elsewhere = Checker(checker.folder, receiver.url)
    elsewhere.teller._process = "other-machine pid:[1] 1 1"
    monkeypatch.setattr("fan_identity.io.liveness.is_gone", lambda mark: False)
    elsewhere.now = checker.now
    elsewhere.teller.tell([DOWN])
    assert receiver.actions() == []
    elsewhere.now = checker.now + CLAIM_MS
    elsewhere.teller.tell([DOWN])
    assert receiver.actions() == [("table", TRIGGER)]


def _never_sends(self: Webhook, notice: Any) -> None:
    raise KeyboardInterrupt


class Away:
    """A table that can be out of reach, or hang."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.mood = "ok"

    def __call__(self) -> Table:
        if self.mood == "hang":
            time.sleep(30)
        if self.mood != "ok":
            raise BackendUnavailableError("--operations: out of reach")
        return self.table


OPERATIONS_DOWN = Probed("operations", "dynamodb://operations", False, 0.1, "--operations: out of reach")
OPERATIONS_UP = Probed("operations", "dynamodb://operations", True, 0.1)


@pytest.mark.parametrize("mood", ["away", "hang"])
def test_a_table_that_is_itself_down_is_told_of_once_and_learns_of_it_later(tmp_path, receiver, mood):
    shared = Checker(tmp_path, receiver.url)
    away = Away(shared.operations)
    (tmp_path / "private").mkdir(mode=0o700)
    away.mood = mood
    for _ in range(3):  # each as a run of its own, as cron makes them
        Checker(tmp_path, receiver.url, away).round(OPERATIONS_DOWN, DOWN)
    assert receiver.actions() == [("operations", TRIGGER), ("table", TRIGGER)]
    away.mood = "ok"
    for _ in range(3):
        Checker(tmp_path, receiver.url, away).round(OPERATIONS_UP, DOWN)
    assert receiver.actions()[2:] == [("operations", RESOLVE)]
    # A checker of another machine, which never saw that file, knows of it all.
    (tmp_path / "private" / "local.db").unlink()
    elsewhere = Checker(tmp_path, receiver.url)
    elsewhere.round(OPERATIONS_UP, DOWN)
    elsewhere.round(OPERATIONS_UP, UP)
    elsewhere.round(OPERATIONS_UP, UP)
    assert receiver.actions()[3:] == [("table", RESOLVE)]


def test_where_nothing_can_be_kept_a_process_still_tells_once_and_says_so(tmp_path, receiver):
    (tmp_path / "private").write_text("a file where the folder would be")
    checker = Checker(tmp_path, receiver.url, Away(SqliteTable(SqliteStore(tmp_path / "x.db"), "operations")))
    checker.teller._book._open = None
    for probed in (DOWN, DOWN, UP, UP):
        checker.round(probed)
    assert receiver.actions() == [("table", TRIGGER), ("table", RESOLVE)]
    assert "cannot be kept" in checker.said[0]


def test_a_folder_others_may_write_to_is_not_trusted(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    said: list[str] = []
    book = OutageBook(None, folder / "local.db", 1.0, said.append)
    assert book.write(outages.Outage("table", revision=1))
    assert said and not (folder / "local.db").exists()


def test_installations_and_users_keep_apart(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, other = local_place("dynamodb://one"), local_place("dynamodb://other")
    assert one != other and one.parent == other.parent == tmp_path / f"fan-identity-{os.getuid()}"


def test_a_webhook_that_hangs_delays_no_round(checker, receiver, until):
    receiver.mood = "hang"
    telling = TellerThread(checker.teller)
    began = time.monotonic()
    for _ in range(200):
        telling.put([DOWN])
    assert time.monotonic() - began < 100, "each of them waited for the webhook, five seconds"
    receiver.wait_for(len, "the webhook was never asked")
    receiver.mood = "ok"
    receiver.requests.clear()

    def told() -> bool:
        telling.put([DOWN])
        return bool(receiver.requests)

    until(told, "the notice is sent once the webhook answers")
    telling.close(60)
    assert receiver.actions() == [("table", TRIGGER)]
