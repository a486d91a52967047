"""What docs/identity.md shows is so: the signed text, the snippet that signs an event, a consumer's line, reasons."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from fan_identity.domain import measures
from fan_identity.domain.event_signature import signed_text
from fan_identity.domain.verification import Status
from fan_identity.domain.verification_effects import EFFECTS
from fan_identity.io.event_consumers import CONSUMERS

PAGE = (Path(__file__).parents[1] / "docs" / "identity.md").read_text()


def test_the_signed_text_is_the_one_shown():
    shown = next(block for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL) if block.startswith("v1\n"))
    assert shown.encode() == signed_text(("v-1", "fan-1", "PASSED", "2026-11-27T12:00:00.000Z"))


def test_the_snippet_signs_an_event_that_is_taken_once(tmp_path):
    (snippet,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(script):
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)["data"]

    assert run(snippet) == {"received": 1, "stored": 1}
    secret, command = snippet.splitlines()[0], snippet.splitlines()[-1]
    assert run(f"{secret}\n{command}") == {"received": 1, "deduplicated": 1}
    assert run(f"export FAN_IDENTITY_IDV_SECRETS=another\n{command}") == {"received": 1, "dead_lettered.forged": 1}


def test_types_statuses_effects_and_reasons_are_named():
    (lines,) = re.findall(r"CONSUMERS: .*?\n(.*?)\n}", PAGE, re.DOTALL)
    shown = re.findall(r'"([^"]+)":', lines)
    assert shown[:-1] == list(CONSUMERS), "and the last line is the further consumer"
    assert all(f"`{status}`" in PAGE for status in Status)
    for effect in EFFECTS.values():
        points, levels = f"{abs(effect.points)} points", f"at least {effect.least_arm}"
        assert re.search(rf"\| {points} .*{levels} \| `{effect.code}` \|", PAGE)
    for reason in ("unknown_event", "malformed", "forged", "out_of_time", "identity_refused", "identity_unavailable"):
        assert f"`{reason}`" in PAGE and reason in measures.DEAD_LETTERS
