"""Load from other processes: wrk as fast as it goes; at a given rate a client of our own, which wrk cannot be.

The client keeps to a schedule whatever the server does, and counts latency from the time a request was due: a server
that stalls is not asked less for it.
"""

import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

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
_PATIENCE = 10.0


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
    """Our own client, in a process of its own."""
    asked = {"port": port, "requests": requests, "connections": connections, "seconds": seconds, "rate": rate}
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return Asked(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """Asks one thing at a time."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[bool] | None = None
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[bool]":
        self.answered = asyncio.get_running_loop().create_future()
        self._received = b""
        self._transport.write(request)
        return self.answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or self.answered is None or self.answered.done():
            return
        length = re.search(rb"content-length: (\d+)", head)
        if length is not None and len(body) >= int(length[1]):
            self.answered.set_result(head.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(False)


async def _ask(port: int, requests: Requests, connections: int, seconds: float, rate: float) -> Asked:
    loop = asyncio.get_running_loop()
    texts = [
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        for path, token in requests
    ]
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(connections):
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
        free.put_nowait(connection)
    latencies: list[float] = []
    errors = 0
    began = time.perf_counter()

    async def ask(due: float, text: bytes) -> None:
        nonlocal errors
        connection = await free.get()
        good = await asyncio.wait_for(connection.ask(text), _PATIENCE)
        latencies.append(time.perf_counter() - due)
        errors += not good
        free.put_nowait(connection)

    tasks: set[asyncio.Task[None]] = set()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = loop.create_task(ask(due, texts[number % len(texts)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    took = time.perf_counter() - began
    cuts = statistics.quantiles(latencies, n=100)
    return Asked(len(latencies) / took, 1_000 * cuts[49], 1_000 * cuts[98], errors)


def main() -> None:
    """Reads what to ask from standard input, writes what came of it."""
    asked = json.loads(sys.stdin.read())
    told = uvloop.run(_ask(**asked))
    print(json.dumps(vars(told)))


if __name__ == "__main__":
    main()
