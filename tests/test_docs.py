"""The documentation's examples run, and what it names exists."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from fan_identity.domain.activity import ACTIVITY_TYPES, decode_activity
from fan_identity.io.access_log import activity_of
from fan_identity.pipelines.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_is_one(page: Path) -> None:
    commands = get_command(app).commands
    for line in re.findall(r"^\s*(?:\.venv/bin/)?fan-identity ([a-z].*)$", page.read_text(), re.MULTILINE):
        words = shlex.split(line, comments=True)
        if words[0] not in commands:
            continue  # prose that begins with the name
        options = {name for parameter in commands[words[0]].params for name in parameter.opts}
        used = {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}
        if hasattr(commands[words[0]], "commands"):
            continue
        before_beam = words[: words.index("--")] if "--" in words else words
        used &= set(before_beam)
        assert used <= options, f"{page.name}: {line}"


def test_the_example_activity_of_the_format_page_is_one() -> None:
    block = re.search(r"```json\n(.*?)```", (ROOT / "docs/record-formats.md").read_text(), re.DOTALL)
    assert block is not None
    activity = decode_activity(block[1].replace("\n", "").encode())
    assert (activity.activity_id, activity.failed, activity.time_ms) == ("a-1", True, 1_718_359_200_123)


def test_the_types_of_the_format_page_are_those_scored() -> None:
    text = (ROOT / "docs/record-formats.md").read_text()
    listed = re.search(r"Types: `([^`]*)`", text)
    assert listed is not None
    assert tuple(listed[1].split()) == ACTIVITY_TYPES


def test_two_identical_log_lines_are_one_activity_as_the_format_page_says() -> None:
    line = b'10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 5 "-" "agent"'
    assert activity_of(line) == activity_of(line)
