"""What deploy/ starts jobs with: the DAG, the template of EventBridge rules, and the commands in both."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from fan_identity.batch.import_events import kind_by_key
from fan_identity.domain.imports import ImportKind
from fan_identity.domain.s3_events import objects_created
from fan_identity.io.settings import Settings
from fan_identity.pipelines.cli.main import app

ROOT = Path(__file__).parents[2]
DAG = ROOT / "deploy" / "airflow" / "fan_identity_nightly.py"
TEMPLATE = json.loads((ROOT / "deploy" / "eventbridge" / "imports.template.json").read_text())
EVENTS = ROOT / "tests" / "golden" / "s3-events"
RESOURCES = TEMPLATE["Resources"]


def dag_constant(name):
    tree = ast.parse(DAG.read_text())
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name
    ]
    return ast.literal_eval(value)


def scheduled_commands():
    for target in RESOURCES["CleanNightly"]["Properties"]["Targets"]:
        [container] = json.loads(target["Input"])["containerOverrides"]
        yield ["fan-identity", *container["command"]]


def documented_commands():
    """The lines of the crontab in docs/jobs.md."""
    [crontab] = re.findall(r"```crontab\n(.*?)```", (ROOT / "docs" / "jobs.md").read_text(), re.DOTALL)
    for line in crontab.splitlines():
        found = re.match(r"[\d*/, -]+ (fan-identity [^|>&;]*)", line)
        if found:
            yield shlex.split(found[1].replace(r"\%", "%").replace("$(date +%F)", "2026-11-26"))


COMMANDS = [
    *(shlex.split(command.replace("{{ ds }}", "2026-11-26")) for command in dag_constant("COMMANDS").values()),
    *scheduled_commands(),
    *documented_commands(),
]


def test_there_are_commands_from_all_three():
    assert len(dag_constant("COMMANDS")) == 5
    assert len(list(scheduled_commands())) == 2
    assert len(list(documented_commands())) >= 3


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[1:4]))
def test_each_is_a_command_with_these_arguments(command):
    """Parsed to the last option by the command line itself, and not run."""
    assert command[0] == "fan-identity"
    group, arguments = typer.main.get_command(app), command[1:]
    context = group.make_context("fan-identity", ["--help"], resilient_parsing=True)
    while hasattr(group, "commands"):
        group = group.commands[arguments[0]]
        context = typer.Context(group, parent=context, info_name=arguments[0])
        arguments = arguments[1:]
    made = group.make_context(group.name, list(arguments), parent=context.parent)
    assert not made.args
    assert {name for name, value in made.params.items() if value} - {"context"}


def test_a_wrong_option_would_be_seen():
    with pytest.raises(typer.TyperException):
        test_each_is_a_command_with_these_arguments(["fan-identity", "imports", "clean", "cluster", "--keeep", "7"])
    with pytest.raises(KeyError):
        test_each_is_a_command_with_these_arguments(["fan-identity", "imports", "tidy", "cluster"])


def test_the_dag_is_ordered_without_circles():
    names, order = dag_constant("COMMANDS"), dag_constant("ORDER")
    assert {name for pair in order for name in pair} == set(names)
    done: set[str] = set()
    while len(done) < len(names):
        ready = {name for name in names if name not in done and all(b in done for b, a in order if a == name)}
        assert ready, "tasks wait for each other"
        done |= ready


def test_what_the_template_refers_to_is_there():
    known = {*RESOURCES, *TEMPLATE["Parameters"]}

    def references(value):
        if isinstance(value, dict):
            if "Ref" in value:
                yield value["Ref"]
            if "Fn::GetAtt" in value:
                yield value["Fn::GetAtt"][0]
            if "Fn::Sub" in value:
                yield from (name.split(".")[0] for name in re.findall(r"\$\{(?!AWS::)([^}]*)\}", value["Fn::Sub"]))
            for member in value.values():
                yield from references(member)
        elif isinstance(value, list):
            for member in value:
                yield from references(member)

    found = list(references(TEMPLATE))
    assert len(found) > 10
    assert set(found) <= known


def pattern(bucket):
    text = json.dumps(RESOURCES["ObjectCreated"]["Properties"]["EventPattern"])
    return json.loads(text.replace('{"Ref": "BucketName"}', json.dumps(bucket)))


def matches(pattern, event):
    """EventBridge's matching, as far as the template uses it: lists of values and of prefixes, in objects."""
    for field, wanted in pattern.items():
        if isinstance(wanted, dict):
            if not isinstance(event.get(field), dict) or not matches(wanted, event[field]):
                return False
        elif not any(
            event.get(field, "").startswith(one["prefix"]) if isinstance(one, dict) else event.get(field) == one
            for one in wanted
        ):
            return False
    return True


def test_the_rule_takes_new_objects_of_imports_and_nothing_else():
    captured = json.loads((EVENTS / "eventbridge.json").read_text())
    assert matches(pattern("partner-drops"), captured)
    assert not matches(pattern("another-bucket"), captured)
    assert not matches(pattern("partner-drops"), json.loads((EVENTS / "deleted-eventbridge.json").read_text()))
    assert not matches(pattern("partner-drops"), {**captured, "source": "aws.ec2"})
    for key, kind in (("bot-or-not/x", ImportKind.BOT_OR_NOT), ("clusters/x", ImportKind.CLUSTER), ("reports/x", None)):
        event = {**captured, "detail": {**captured["detail"], "object": {"key": key, "size": 1}}}
        assert matches(pattern("partner-drops"), event) == (kind is not None)
        [created] = objects_created(json.dumps(event).encode())
        defaults = Settings.model_fields
        prefixes = {
            ImportKind.CLUSTER: defaults["cluster_prefix"].default,
            ImportKind.BOT_OR_NOT: defaults["bot_or_not_prefix"].default,
        }
        assert kind_by_key(created.key, prefixes) is kind, "the rule and the settings' defaults name the same prefixes"
