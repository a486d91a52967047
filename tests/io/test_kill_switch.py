"""The kill switch: nothing is taken up while it is off, and each pause counts once."""

import logging
import threading
from collections import Counter

import pytest

from fan_identity.io import kill_switch
from fan_identity.io.kill_switch import KillSwitch


class Toggle:
    """Flags that a test switches."""

    def __init__(self) -> None:
        self.on = True
        self.asked = threading.Semaphore(0)

    def is_enabled(self, worker: str) -> bool:
        self.asked.release()
        return self.on and worker == "w"

    def includes(self, worker: str, global_user_id: str) -> bool:
        raise AssertionError(worker + global_user_id)

    def look(self) -> None:
        raise AssertionError


@pytest.fixture
def toggle():
    kill_switch._paused.clear()
    yield Toggle()
    kill_switch._paused.clear()


def made(toggle: Toggle, counts: Counter[str], draining: threading.Event | None = None) -> KillSwitch:
    def count(name: str, number: int) -> None:
        counts[name] += number

    return KillSwitch("w", toggle, count, draining or threading.Event())


def test_pauses_are_counted_and_not_polls(toggle: Toggle, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    counts: Counter[str] = Counter()
    readers = [made(toggle, counts) for _ in range(3)]  # of one process, made anew for every bundle
    for pause in range(1, 4):
        toggle.on = False
        assert not any(reader.is_on() for reader in readers for _ in range(10))
        assert counts == {"skipped": pause}
        toggle.on = True
        assert all(reader.is_on() for reader in readers for _ in range(10))
    assert counts == {"skipped": 3}
    assert [record.message for record in caplog.records] == ["switched off by its flag", "switched on by its flag"] * 3
    assert {vars(record)["worker"] for record in caplog.records} == {"w"}


def test_a_bounded_read_waits_until_it_is_on_again(toggle: Toggle):
    toggle.on = False
    went_on: list[bool] = []
    waiting = threading.Thread(target=lambda: went_on.append(made(toggle, Counter()).wait()))
    waiting.start()
    assert toggle.asked.acquire(timeout=60) and toggle.asked.acquire(timeout=60)
    assert waiting.is_alive() and not went_on
    toggle.on = True
    waiting.join(60)
    assert went_on == [True]


def test_who_drains_does_not_wait_and_who_is_on_never_does(toggle: Toggle):
    draining = threading.Event()
    draining.set()
    assert made(toggle, Counter(), draining).wait()
    toggle.on = False
    assert not made(toggle, Counter(), draining).wait()
