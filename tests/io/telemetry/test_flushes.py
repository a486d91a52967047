"""Flushes before a Lambda's answer: one at a time, and none for a while after one that was late."""

import threading

import pytest

from fan_identity.io.settings import load_settings
from fan_identity.io.telemetry import metrics, start
from fan_identity.io.telemetry.flushes import PAUSE_SECONDS, Flushes
from fan_identity.serving.traces import resolver_trace

from ...otlp_receiver import otlp_receiver
from .recording import recording


def told(outcome: str) -> float:
    return metrics.missed_flushes[outcome,].value or 0


class Hanging:
    """A send that hangs until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Event()
        self.gone = threading.Event()

    def __call__(self) -> None:
        self.asked += 1
        self.go.wait(60)
        self.gone.set()


@pytest.fixture
def hanging():
    one = Hanging()
    yield one
    one.go.set()


def sending_threads() -> int:
    return sum(thread.name == "telemetry flush" for thread in threading.enumerate())


def test_a_flush_that_hangs_is_not_joined_by_a_second_one(quiet, hanging):
    flushes, before = Flushes(), sending_threads()
    for _ in range(5):
        flushes.flush(0.01, [hanging])
    assert hanging.asked == 1
    assert sending_threads() == before + 1
    assert (told("late"), told("left_out")) == (1, 4)


def test_after_a_late_one_there_is_a_pause_and_then_all_is_as_before(quiet, hanging):
    now, sent = [0.0], []
    flushes = Flushes(lambda: now[0])
    flushes.flush(0.01, [hanging])
    hanging.go.set()
    assert hanging.gone.wait(60)
    flushes.flush(60, [lambda: sent.append("in the pause")])
    now[0] = PAUSE_SECONDS
    while sending_threads():
        threading.Event().wait(0.001)  # its last steps
    flushes.flush(60, [lambda: sent.append("after it")])
    assert sent == ["after it"]
    assert (told("late"), told("left_out")) == (1, 1)


def test_what_is_sent_side_by_side_shares_one_deadline(quiet):
    both = threading.Barrier(2)
    Flushes().flush(60, [lambda: both.wait(60), lambda: both.wait(60)])
    assert not both.broken
    assert told("late") == 0


def test_an_error_is_told_to_the_log_only(quiet, caplog):
    def fail():
        raise ValueError("canary-user")

    caplog.set_level("INFO")
    Flushes().flush(60, [fail])
    assert "ValueError" in caplog.text and "canary" not in caplog.text


def test_resolvers_answer_while_a_collector_hangs_and_wait_for_it_once(quiet, monkeypatch):
    waited = []
    flush = Flushes.flush
    monkeypatch.setattr(start, "_flushes", Flushes())
    monkeypatch.setattr(
        Flushes, "flush", lambda self, seconds, sends: (waited.append(seconds), flush(self, seconds, sends))
    )
    with otlp_receiver() as collector, recording():
        collector.hanging.set()
        quiet.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        quiet.setenv("OTEL_TRACES_EXPORTER", "none")
        start.start("scoreUsers", load_settings())
        for _ in range(3):
            with resolver_trace("getArmScore", "r", {}, trusts=False):
                pass
        collector.hanging.clear()
    assert waited == [start.ANSWER_SECONDS] * 3
    assert (told("late"), told("left_out")) == (1, 2)
