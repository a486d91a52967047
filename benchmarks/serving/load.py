"""Load from other processes: wrk as fast as it goes, vegeta at a given rate."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_WRK_SCRIPT = """
local paths, tokens = {}, {}
for line in io.lines("%s") do
  local path, token = line:match("(%%S+) (%%S+)")
  paths[#paths + 1], tokens[#tokens + 1] = path, "Bearer " .. token
end
local number = 0
request = function()
  number = number %% #paths + 1
  wrk.headers["Authorization"] = tokens[number]
  return wrk.format("GET", paths[number])
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %%d %%d %%f %%f %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Asked:
    """What came of a load.

    Attributes:
        rate: requests answered a second.
        p50_ms: latency. Likewise ``p99_ms``.
        errors: answers other than 2xx, and requests without one.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


Requests = Sequence[tuple[str, str]]
"""Paths, each with the token to ask with."""


def as_fast_as_possible(port: int, requests: Requests, *, connections: int, seconds: float) -> Asked:
    """Wrk on one thread."""
    if shutil.which("wrk") is None:
        raise SystemExit("the benchmark needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        lines, script = Path(folder, "requests"), Path(folder, "ask.lua")
        lines.write_text("".join(f"{path} {token}\n" for path, token in requests))
        script.write_text(_WRK_SCRIPT % lines)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script), f"http://127.0.0.1:{port}"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", told)
    if match is None:
        raise SystemExit(f"wrk says: {told}")
    return Asked(
        rate=1e6 * int(match[1]) / int(match[2]),
        p50_ms=float(match[3]) / 1_000,
        p99_ms=float(match[4]) / 1_000,
        errors=int(match[5]),
    )


def at_rate(port: int, requests: Requests, *, connections: int, seconds: float, rate: float) -> Asked:
    """Vegeta, on one processor: an open loop, so a server that stalls is not asked less for it."""
    vegeta = shutil.which("vegeta", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if vegeta is None:
        raise SystemExit("the benchmark needs vegeta: make vegeta (with Go), or put it on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        targets, results = Path(folder, "targets"), Path(folder, "results")
        targets.write_text(
            "\n\n".join(f"GET http://127.0.0.1:{port}{path}\nAuthorization: Bearer {token}" for path, token in requests)
        )
        subprocess.run(
            [
                *(vegeta, "-cpus=1", "attack", f"-rate={rate:.0f}/1s", f"-duration={seconds:.0f}s", "-max-body=0"),
                *(f"-connections={connections}", f"-max-connections={connections}", f"-workers={connections}"),
                *(f"-targets={targets}", f"-output={results}"),
            ],
            check=True,
        )
        told = subprocess.run([vegeta, "report", "-type=json", results], capture_output=True, check=True).stdout
    report = json.loads(told)
    return Asked(
        rate=report["throughput"],
        p50_ms=report["latencies"]["50th"] / 1e6,
        p99_ms=report["latencies"]["99th"] / 1e6,
        errors=report["requests"] - report["status_codes"].get("200", 0),
    )
