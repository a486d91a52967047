"""The demo, and a small input beside what it must leave behind (tests/golden): formats, keys, scores, reasons.

Expected to change with the model or the record formats only; then look at the difference and write it anew with
``fan-identity score tests/golden/input.jsonl --store sqlite:///g.db; fan-identity dump --store sqlite:///g.db``.
"""

import json
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "fan_identity.pipelines.cli", *arguments], capture_output=True, check=False
    )


def test_the_golden_input_leaves_the_golden_dump(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/g.db"
    scored = run("score", str(GOLDEN / "input.jsonl"), "--store", store, "--json")
    assert scored.returncode == 1, scored.stderr
    counts = json.loads(scored.stdout)
    assert {name: counts[name] for name in ("read", "rejected", "deduplicated", "scored", "deadLettered")} == {
        "read": 17,
        "rejected": {"blank_user": 1, "in_future": 1, "too_old": 1, "unknown_type": 1},
        "deduplicated": 1,
        "scored": 10,
        "deadLettered": {"malformed": 2},
    }
    assert run("dump", "--store", store).stdout == (GOLDEN / "expected-dump.jsonl").read_bytes()


def test_the_demo_replaces_a_demo_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    small = ("demo", "--fans", "60", "--bots", "5", "--out", str(folder), "--json")
    first, again = run(*small), run(*small)
    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    figures = json.loads(first.stdout)
    assert figures["unaccounted"] == 0
    assert figures["rocAuc"] == json.loads(again.stdout)["rocAuc"]
    assert (folder / "report.html").stat().st_size > 0

    own = tmp_path / "own"
    own.mkdir()
    (own / "fans.db").write_bytes(b"a store of the user's own")
    refused = run("demo", "--out", str(own))
    assert refused.returncode == 2
    assert b"holds no demo; name another folder" in refused.stderr
    assert (own / "fans.db").read_bytes() == b"a store of the user's own"
