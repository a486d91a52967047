"""Samplers by OpenTelemetry's names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.traceparent import TraceParent
from fan_identity.io.errors import UsageError
from fan_identity.io.telemetry.sampling import Sampling, sampling_of

SAMPLED, UNSAMPLED = TraceParent(1, 1, sampled=True), TraceParent(1, 1, sampled=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Sampling(0.01, by_parent=True)),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.25"}, Sampling(0.25, by_parent=True)),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, Sampling(1.0, by_parent=False)),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, Sampling(0.0, by_parent=False)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}, Sampling(1.0, by_parent=False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, Sampling(1.0, by_parent=True)),
        ({"OTEL_TRACES_SAMPLER": "ParentBased_Always_Off"}, Sampling(0.0, by_parent=True)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}, Sampling(0.01, by_parent=True)),
    ],
)
def test_the_samplers_there_are(environment, expected):
    assert sampling_of(environment) == expected


@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "inf", "half", "1%"])
def test_a_share_is_from_0_to_1(text):
    with pytest.raises(UsageError, match="OTEL_TRACES_SAMPLER_ARG"):
        sampling_of({"OTEL_TRACES_SAMPLER_ARG": text})


def test_another_sampler_is_named_an_error_with_those_there_are():
    with pytest.raises(UsageError, match=r"OTEL_TRACES_SAMPLER: one of always_on, .*parentbased_traceidratio"):
        sampling_of({"OTEL_TRACES_SAMPLER": "jaeger_remote"})


@given(st.floats(0, 1))
def test_a_parent_decides_where_parents_count(ratio):
    assert Sampling(ratio, by_parent=True).chooses(SAMPLED)
    assert not Sampling(ratio, by_parent=True).chooses(UNSAMPLED)


@given(st.integers(1, 2**128 - 1), st.floats(0, 1), st.floats(0, 1))
def test_by_id_what_a_smaller_share_chooses_a_larger_one_does_too(trace_id, one, other):
    parent = TraceParent(trace_id, 1, sampled=False)
    smaller, larger = Sampling(min(one, other), by_parent=False), Sampling(max(one, other), by_parent=False)
    assert not smaller.chooses(parent) or larger.chooses(parent)
    assert Sampling(1.0, by_parent=False).chooses(parent)
    assert not Sampling(0.0, by_parent=False).chooses(parent)


def test_all_or_nothing_leaves_nothing_to_chance():
    assert all(Sampling(1.0).chooses(None) for _ in range(1_000))
    assert not any(Sampling(0.0).chooses(None) for _ in range(1_000))
