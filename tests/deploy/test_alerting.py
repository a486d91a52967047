"""The examples of notices, and how a receiver verifies them; the rule that starts checkLiveness."""

import importlib.util
import json
from pathlib import Path

import msgspec
import pytest

from fan_identity.domain.liveness import Probed, after_probe, claimed, notice_of, told
from fan_identity.io.alerts import signature
from fan_identity.serving.resolver_handlers import HANDLERS

DEPLOY = Path(__file__).parents[2] / "deploy"
NOW_MS = 1_795_776_312_345
DOWN = Probed(
    "table",
    "dynamodb://fan-identity",
    False,
    3.0,
    "--table: dynamodb://fan-identity is out of reach (ConnectTimeoutError)",
    ("table", "dead_letters"),
)


def example(name):
    return json.loads((DEPLOY / "alerting" / f"{name}.json").read_text())


def test_the_examples_are_what_is_sent():
    begun = after_probe(None, DOWN, NOW_MS)
    assert begun is not None
    assert notice_of(begun, "3f2a9c1b") == example("trigger")
    known = told(claimed(begun, "me", NOW_MS))
    up = msgspec.structs.replace(DOWN, up=True, problem="")
    for after_ms in (90_000, 105_000):
        known = after_probe(known, up, NOW_MS + after_ms)
        assert known is not None
    assert notice_of(known, "3f2a9c1b") == example("resolve")


@pytest.fixture(scope="module")
def is_genuine():
    spec = importlib.util.spec_from_file_location("verify", DEPLOY / "alerting" / "verify.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.is_genuine


def test_what_we_sign_a_receiver_takes_and_nothing_else(is_genuine):
    body = (DEPLOY / "alerting" / "trigger.json").read_bytes()
    header = signature(body, "key", 1_000)
    assert is_genuine(body, header, "key", 1_000) and is_genuine(body, header, "key", 1_299)
    assert not is_genuine(body, header, "key", 1_301)
    assert not is_genuine(body + b" ", header, "key", 1_000)
    assert not is_genuine(body, header, "another", 1_000)
    for forged in ("", "t=,v1=", "t=x,v1=0", header.replace("t=1000", "t=1001"), "t=1000,v1=é", "t=" + "9" * 5_000):
        assert not is_genuine(body, forged, "key", 1_000)


def test_the_rule_starts_a_worker_there_is():
    template = json.loads((DEPLOY / "eventbridge" / "liveness.template.json").read_text())
    rule = template["Resources"]["CheckLiveness"]["Properties"]
    (target,) = rule["Targets"]
    assert target["Id"] in HANDLERS
    assert target["RetryPolicy"]["MaximumRetryAttempts"] == 0
    assert template["Resources"]["MayInvoke"]["Properties"]["SourceArn"] == {"Fn::GetAtt": ["CheckLiveness", "Arn"]}
