"""A batch's spans and time from its source to its last step, or to the step that fails."""

from dataclasses import replace

import pytest

from fan_identity.domain.records import RawRecord
from fan_identity.io.errors import UsageError
from fan_identity.io.telemetry import metrics
from fan_identity.io.telemetry.batch_traces import Phase, open_traces
from fan_identity.io.telemetry.totals import totals_of
from fan_identity.io.telemetry.unfailing import unfailing
from fan_identity.transforms import batches
from fan_identity.transforms.batches import BatchStep, begin

from ..io.telemetry.recording import recording

WORKER = "enqueueFromStream"


class _DecodeThings(BatchStep):
    phase = Phase.INPUT

    def step(self, batch):
        return batch


class _ScoreThings(BatchStep):
    def step(self, batch):
        raise ValueError("canary-user")


class _Acknowledge(BatchStep):
    phase = Phase.RESULT
    ends_batch = True

    def step(self, batch):
        return batch


@pytest.fixture
def batch():
    def make():
        return begin(WORKER, "read", "kafka://h/activities#0", [RawRecord(b"{}", f"offset {n}", b"{}") for n in (1, 2)])

    return make


def run(step, batch):
    (done,) = step.process(batch)
    return done


@pytest.fixture
def measured(monkeypatch):
    told = []
    monkeypatch.setattr(metrics, "observe_batch", lambda *observed: told.append(observed))
    return told


def test_a_batch_is_open_from_its_source_to_its_last_step(batch, measured):
    totals = totals_of(WORKER)
    finished = totals.batches
    with recording() as recorded:
        one = batch()
        assert open_traces.get(one.request_id) is not None
        run(_Acknowledge(), run(_DecodeThings(), one))
        assert open_traces.get(one.request_id) is None
    assert [recorded.parent(recorded.one(name)) for name in ("Decode things", "Acknowledge")] == [
        "Transform Input",
        "Result Handler",
    ]
    assert recorded.one(WORKER).attributes["fan_identity.request_id"] == one.request_id
    assert {item.trace.split("-")[1] for item in one.items} == {
        f"{span.context.trace_id:032x}" for span in recorded.named("process activities")
    }
    ((worker, seconds, failed),) = measured
    assert (worker, failed) == (WORKER, False)
    assert 0 < seconds < 60
    assert totals.batches == finished + 1


def test_a_step_that_fails_ends_the_spans_as_failed_and_says_only_of_what_kind(batch, measured):
    totals = totals_of(WORKER)
    failures = totals.failed_batches
    with recording() as recorded:
        one = run(_DecodeThings(), batch())
        with pytest.raises(ValueError, match="canary"):
            run(_ScoreThings(), one)
        assert open_traces.get(one.request_id) is None
    failed = {span.name for span in recorded.spans if span.attributes.get("error.type") == "ValueError"}
    assert failed == {"Score things", "Business Logic", WORKER, "process activities"}
    assert "canary" not in "".join(span.to_json() for span in recorded.spans)
    assert [outcome for _, _, outcome in measured] == [True]
    assert totals.failed_batches == failures + 1


def test_off_a_batch_has_no_spans(batch):
    one = batch()
    assert open_traces.get(one.request_id) is None
    assert [item.trace for item in one.items] == ["", ""]
    run(_Acknowledge(), one)


class Broken:
    """A trace, or something else, whose every method fails."""

    def __call__(self, *args):
        raise RuntimeError("telemetry is broken")

    step = end = __call__


class _Queue:
    def __init__(self):
        self.released = []

    def release(self, receipts, delay_ms):
        self.released.append(receipts)


@pytest.fixture
def received(batch, monkeypatch):
    one = replace(batch(), receipts=("r1", "r2"))
    queue = _Queue()
    monkeypatch.setitem(batches.received_from, one.source, queue)
    return one, queue


def test_telemetry_that_fails_neither_fails_a_batch_nor_hides_why_it_failed(received, monkeypatch):
    one, queue = received
    monkeypatch.setattr(batches, "_end", Broken())
    with recording():
        open_traces.add(one.request_id, Broken())
        assert run(_Acknowledge(), one) is one
        with pytest.raises(ValueError, match="canary-user"):
            run(_ScoreThings(), one)
    open_traces.take(one.request_id)
    assert queue.released == [("r1", "r2")]


def test_a_batch_that_failed_is_counted_where_its_spans_cannot_be_ended(received, measured):
    one, queue = received
    with recording():
        open_traces.add(one.request_id, Broken())
        with pytest.raises(ValueError, match="canary-user"):
            run(_ScoreThings(), one)
        assert open_traces.get(one.request_id) is None
    assert queue.released and [outcome for _, _, outcome in measured] == [True]


def test_a_queue_that_fails_too_does_not_hide_why_the_batch_failed(received, monkeypatch):
    one, queue = received
    monkeypatch.setattr(queue, "release", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match="canary-user"):
        run(_ScoreThings(), one)


def test_a_source_goes_on_where_spans_cannot_be_begun(monkeypatch):
    monkeypatch.setattr(batches, "open_trace", lambda *_: 1 / 0)
    with recording():
        one = begin(WORKER, "read", "kafka://h/activities#0", [RawRecord(b"{}", "offset 1", b"{}")])
    assert len(one.items) == 1


@pytest.mark.parametrize("source", ["sqlite:///fans.db", "kafka://h/activities#0"])
@pytest.mark.parametrize("position", ["offset 1", f"offset {'9' * 19}", f"offset {'9' * 5_000}", "offset ²", ""])
def test_a_worker_nobody_knows_and_positions_of_any_kind_are_recorded(source, position):
    with recording() as recorded:
        one = begin("nobody", "read", source, [RawRecord(b"{}", position, b"{}")])
        run(_Acknowledge(), one)
    offsets = [span.attributes.get("messaging.kafka.offset") for span in recorded.spans]
    assert set(offsets) <= {None, 1}
    assert len(recorded.named("nobody")) == 1


def test_telemetry_goes_by_the_worker_of_the_batch_and_is_looked_at_once_a_process(batch, monkeypatch):
    started = []
    monkeypatch.setattr(batches, "start", lambda worker, settings: started.append(worker))
    monkeypatch.setattr(batches, "_told_of", set())
    monkeypatch.delenv("APP_NAME", raising=False)
    one = replace(batch(), worker="scoreUsers")
    for _ in range(3):
        run(_Acknowledge(), one)
    assert started == [WORKER, "scoreUsers"]


def test_telemetry_that_cannot_be_started_stops_no_source(monkeypatch, caplog):
    def start(worker, settings):
        raise UsageError("--metrics-port: taken")

    monkeypatch.setattr(batches, "start", start)
    monkeypatch.setattr(batches, "_told_of", set())
    monkeypatch.setattr(unfailing, "_due", lambda: True)
    one = begin(WORKER, "read", "kafka://h/activities#0", [RawRecord(b"{}", "offset 1", b"{}")])
    assert len(one.items) == 1
    assert "--metrics-port: taken" in caplog.text
