"""The embedded metric format: what a line holds, where one is written, and that CloudWatch would take it."""

import io
import json
import sys
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.measures import DEAD_LETTERS, EVENTS, REJECTIONS
from fan_identity.io import emf

from .embedded_metrics import checked

EVERYTHING = {
    **dict.fromkeys(EVENTS, 1),
    **{f"rejected.{reason}": 2 for reason in REJECTIONS},
    **{f"dead_lettered.{reason}": 3 for reason in DEAD_LETTERS},
    **dict.fromkeys(emf.SERVED, 4),
}


def line(counts: dict[str, int], **more: object) -> str:
    options = {"failed": False, "request_id": "r1", "now_ms": 1_718_355_600_000} | more
    return json.dumps(emf.embedded("scoreUsers", 0.0123, counts, **options))  # type: ignore[arg-type]


def test_a_line_tells_of_an_invocation():
    value = checked(line({"received": 10, "scored": 8, "dead_lettered.malformed": 2, "returned": 0}))
    assert value.pop("_aws")["CloudWatchMetrics"][0]["Dimensions"] == [["worker"]]
    assert value == {
        "worker": "scoreUsers",
        "requestId": "r1",
        "invocations": 1,
        "errors": 0,
        "duration": 12.3,
        "received": 10,
        "scored": 8,
        "dead_lettered.malformed": 2,
    }
    assert checked(line({}, failed=True))["errors"] == 1


def test_all_that_can_be_counted_fits_into_a_line():
    value = checked(line(EVERYTHING))
    assert {name: value[name] for name in EVERYTHING} == EVERYTHING
    assert not any(name.endswith("other") for name in value)


@given(st.dictionaries(st.text() | st.sampled_from(sorted(EVERYTHING)), st.integers(0, 10**12), max_size=150))
def test_no_name_of_a_request_becomes_a_metric(counts: dict[str, int]):
    value = checked(line(counts))
    names = {metric["Name"] for metric in value["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    known = {*EVERYTHING, "other", "rejected.other", "dead_lettered.other"}
    assert names - {"invocations", "errors", "duration"} <= known
    assert sum(value[name] for name in names & known) == sum(counts.values())


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f"}, True),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f", emf.ASKED_ENV: "off"}, False),
        ({emf.ASKED_ENV: "ON"}, True),
        ({emf.ASKED_ENV: "maybe"}, False),
    ],
)
def test_lines_are_written_on_lambda_or_where_asked_for(environment: dict[str, str], on: bool):
    assert emf.is_on(environment) is on


def test_an_invocation_that_fails_is_told_and_fails(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    before = time.time() * 1_000
    with pytest.raises(ValueError, match="gone"), emf.invocation("validateToken", "r7") as counts:
        counts["denied"] += 1
        raise ValueError("gone")
    value = checked(capsys.readouterr().out.rstrip("\n"))
    assert (value["worker"], value["requestId"], value["errors"], value["denied"]) == ("validateToken", "r7", 1, 1)
    assert before - 1 <= value["_aws"]["Timestamp"] <= time.time() * 1_000
    assert value["duration"] >= 0


def test_nothing_is_written_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    with emf.invocation("scoreUsers") as counts:
        counts["scored"] += 1
    assert capsys.readouterr().out == ""


def test_a_log_that_is_gone_does_not_fail_the_invocation(monkeypatch: pytest.MonkeyPatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(text)

    monkeypatch.setenv(emf.ASKED_ENV, "on")
    monkeypatch.setattr(sys, "stdout", Gone())
    with emf.invocation("scoreUsers"):
        pass


@pytest.mark.parametrize(
    "broken",
    [
        {"_aws": {"CloudWatchMetrics": []}},
        {"_aws": {"Timestamp": "now", "CloudWatchMetrics": []}},
        {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "", "Dimensions": [["w"]], "Metrics": []}]}},
        {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "n", "Dimensions": [], "Metrics": []}]}},
        {
            "_aws": {
                "Timestamp": 1,
                "CloudWatchMetrics": [
                    {"Namespace": "n", "Dimensions": [[]], "Metrics": [{"Name": "m", "Unit": "Hours"}]}
                ],
            },
            "m": 1,
        },
        {
            "_aws": {
                "Timestamp": 1,
                "CloudWatchMetrics": [{"Namespace": "n", "Dimensions": [["w"]], "Metrics": [{"Name": "m"}]}],
            },
            "m": 1,
            "w": 7,
        },
    ],
)
def test_the_check_can_fail(broken: dict[str, object]):
    with pytest.raises((msgspec.ValidationError, AssertionError, KeyError)):
        checked(json.dumps(broken))
