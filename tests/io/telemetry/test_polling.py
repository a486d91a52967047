import threading

import pytest

from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.telemetry.polling import INTERVAL_SECONDS, KEPT_SECONDS, Polled, values_of

PATIENCE = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_asked_once_an_interval_and_its_answer_kept_a_while():
    clock, answers = Clock(), iter([3.0, 4.0, 5.0])
    polled = Polled(lambda: next(answers), clock)
    polled.begin()
    assert polled.value(PATIENCE) == 3
    polled.begin()
    assert polled.value(PATIENCE) == 3
    clock.now += INTERVAL_SECONDS
    polled.begin()
    assert polled.value(PATIENCE) == 4
    clock.now += KEPT_SECONDS + 1
    assert polled.value(0) is None


def test_a_question_that_hangs_is_not_waited_for_nor_asked_again():
    hanging, asked = threading.Event(), []

    def ask() -> float:
        asked.append(1)
        hanging.wait()
        return 7.0

    clock = Clock()
    polled = Polled(ask, clock)
    assert values_of({"queue": polled}, patience=0.01) == {}
    clock.now += 5 * INTERVAL_SECONDS
    assert values_of({"queue": polled}, patience=0.01) == {}
    assert asked == [1]
    hanging.set()
    assert polled.value(PATIENCE) == 7


@pytest.mark.parametrize("error", [BackendUnavailableError("--queue: out of reach"), RuntimeError("fan-42 is secret")])
def test_a_question_that_fails_is_told_once_without_its_text(error, caplog):
    clock = Clock()

    def ask() -> float:
        raise error

    polled = Polled(ask, clock)
    for _ in range(3):
        polled.begin()
        assert polled.value(PATIENCE) is None
        clock.now += INTERVAL_SECONDS
    assert len(caplog.records) == 1
    assert "fan-42" not in caplog.text
