"""A batch's spans and time from its source to its last step, or to the step that fails."""

import pytest

from fan_identity.domain.records import RawRecord
from fan_identity.io.telemetry import metrics
from fan_identity.io.telemetry.batch_traces import Phase, open_traces
from fan_identity.io.telemetry.totals import totals_of
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
