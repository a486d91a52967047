"""The rules of deploy/eventbridge for events: a rule for each type that is consumed, and they match what we publish."""

import json
from pathlib import Path

import pytest

from fan_identity.io.event_consumers import CONSUMERS
from fan_identity.io.registry import worker_named
from fan_identity.io.steps import MAX_RECEIVES
from fan_identity.serving.functions.upsert_user import EVENT
from fan_identity.serving.outbox import SOURCE

from ..shuffled_events import enveloped, idv, upsert

TEMPLATE = json.loads((Path(__file__).parents[2] / "deploy" / "eventbridge" / "events.template.json").read_text())
RULES = {
    name: part["Properties"] for name, part in TEMPLATE["Resources"].items() if part["Type"] == "AWS::Events::Rule"
}


def matches(pattern, event):
    """Whether a pattern of lists of values matches, as the EventBridge user guide, "Event patterns", has it."""
    parameters = {name: parameter["Default"] for name, parameter in TEMPLATE["Parameters"].items()}
    return all(
        event[name] in [parameters[value["Ref"]] if isinstance(value, dict) else value for value in values]
        for name, values in pattern.items()
    )


def test_there_is_a_rule_for_each_type_that_is_consumed_and_none_besides():
    kinds = [kind for rule in RULES.values() for kind in rule["EventPattern"]["detail-type"]]
    assert sorted(kinds) == sorted(CONSUMERS)


@pytest.mark.parametrize(
    ("event", "rules"),
    [
        (upsert(1), ["UserUpserts"]),
        (enveloped(idv(1), "idv", source="idv"), ["IdvResults"]),
        (enveloped(idv(1), "idv", source="somebody"), []),
        (enveloped(b"{}", "user.deleted"), []),
    ],
)
def test_each_event_is_taken_by_its_rule(event, rules):
    taken = [name for name, rule in RULES.items() if matches(rule["EventPattern"], json.loads(event))]
    assert taken == rules


def test_the_rule_names_what_the_outbox_publishes():
    assert RULES["UserUpserts"]["EventPattern"] == {"source": [SOURCE], "detail-type": [EVENT]}


def test_the_queue_is_the_workers_and_lets_it_give_up_by_itself():
    queue = TEMPLATE["Resources"]["IdentityEvents"]["Properties"]
    assert queue["QueueName"] == worker_named("handleEvent").queue_name
    assert queue["RedrivePolicy"]["maxReceiveCount"] > MAX_RECEIVES
    (statement,) = TEMPLATE["Resources"]["IdentityEventsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    senders = [each["Fn::GetAtt"][0] for each in statement["Condition"]["ArnEquals"]["aws:SourceArn"]]
    assert sorted(senders) == sorted(RULES)
    for rule in RULES.values():
        assert [target["Arn"] for target in rule["Targets"]] == [{"Fn::GetAtt": ["IdentityEvents", "Arn"]}]
