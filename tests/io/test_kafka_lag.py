"""How far behind a worker is, asked once for everybody in a process."""

import threading

import pytest

from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.kafka_lag import Recent


def test_who_asks_soon_after_another_shares_the_answer():
    now, asked = [0.0], []

    def ask(text, worker, seconds):
        asked.append(worker)
        return len(asked)

    recent = Recent(ask, lambda: now[0])
    assert [recent("t", "a", 2), recent("t", "a", 5), recent("t", "b", 5)] == [1, 1, 2]
    now[0] = 4.0
    assert recent("t", "a", 2) == 3
    assert asked == ["a", "b", "a"]


def test_who_asks_at_the_same_time_waits_for_the_same_answer():
    asked, go, together = [], threading.Event(), threading.Barrier(3)

    def ask(text, worker, seconds):
        asked.append(worker)
        go.wait(60)
        return 7

    recent, found = Recent(ask), []

    def look():
        together.wait(60)
        found.append(recent("t", "a", 2))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    together.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert (asked, found) == (["a"], [7, 7])


def test_an_error_is_no_answer():
    answers = iter([BackendUnavailableError("away"), 3])

    def ask(text, worker, seconds):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    recent = Recent(ask)
    with pytest.raises(BackendUnavailableError):
        recent("t", "a", 2)
    assert recent("t", "a", 2) == 3
