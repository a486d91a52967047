import os
import subprocess
import sys
import threading

from fan_identity.io import ending

CODE = """
import threading
from fan_identity.io import ending
never = threading.Event()
def fail(): raise ValueError("canary-user")
def say(): print("said", flush=True)
for close in (never.wait, fail, never.wait, say, say):
    ending.at_end(close)
"""


def test_what_is_left_is_said_at_the_end_whoever_hangs_or_fails_beside_it():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=True, env=dict(os.environ)
    )
    assert done.stdout == "said\n"
    assert "canary" not in done.stderr


def test_all_are_closed_side_by_side(monkeypatch):
    together, met = threading.Barrier(3), []
    monkeypatch.setattr(ending, "_closings", [])
    for _ in range(3):
        ending.at_end(lambda: met.append(together.wait(60)))
    ending.end(60)
    assert sorted(met) == [0, 1, 2]
