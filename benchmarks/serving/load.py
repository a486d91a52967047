"""Load from other processes: wrk as fast as it goes; at a given rate a client of our own, which wrk cannot be.

The client keeps to a schedule whatever the server does, and counts latency from the time a request was due: a server
that stalls is not asked less for it.
"""

import asyncio
import gc
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

    def __init__(self, client: "_Client") -> None:
        self._client = client
        self._due = 0.0
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, due: float, request: bytes) -> None:
        self._due = due
        self._received = b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        at = head.find(b"content-length: ")
        if len(body) >= int(head[at + 16 :].partition(b"\r\n")[0]):
            self._client.answered(self, self._due, good=head.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost()


class _Client:
    """Asks on a schedule, over the connections that are free; what is due while none is waits its turn.

    No task, future or queue for a request: on two cores the client would take the server's time.
    """

    def __init__(self, requests: Sequence[bytes], rate: float, number: int) -> None:
        self._requests = requests
        self._rate = rate
        self._number = number
        self._next = 0
        self._began = 0.0
        self._free: list[_Connection] = []
        self.latencies: list[float] = []
        self.errors = 0
        self.done = asyncio.get_running_loop().create_future()

    async def run(self, port: int, connections: int) -> float:
        """Asks everything; the seconds it took."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
            self._free.append(connection)
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection here would be taken for the server's
        self._began = time.perf_counter()
        self._tick()
        await asyncio.wait_for(self.done, self._number / self._rate + _PATIENCE)
        return time.perf_counter() - self._began

    def _tick(self) -> None:
        now = time.perf_counter()
        while self._free and self._next < self._number and (due := self._began + self._next / self._rate) <= now:
            self._free.pop().ask(due, self._requests[self._next % len(self._requests)])
            self._next += 1
        if self._next < self._number:
            due = self._began + self._next / self._rate
            # While no connection is free, whoever is answered goes on.
            asyncio.get_running_loop().call_later(max(due - now, 0.001 if not self._free else 0.0), self._tick)

    def answered(self, connection: _Connection, due: float, *, good: bool) -> None:
        now = time.perf_counter()
        self.latencies.append(now - due)
        self.errors += not good
        if self._next < self._number and (later := self._began + self._next / self._rate) <= now:
            connection.ask(later, self._requests[self._next % len(self._requests)])
            self._next += 1
        else:
            self._free.append(connection)
        if len(self.latencies) == self._number and not self.done.done():
            self.done.set_result(None)

    def lost(self) -> None:
        if len(self.latencies) < self._number and not self.done.done():
            self.done.set_exception(ConnectionError("the server closed a connection"))


async def _ask(port: int, requests: Requests, connections: int, seconds: float, rate: float) -> Asked:
    texts = [
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        for path, token in requests
    ]
    client = _Client(texts, rate, int(rate * seconds))
    took = await client.run(port, connections)
    cuts = statistics.quantiles(client.latencies, n=100)
    return Asked(len(client.latencies) / took, 1_000 * cuts[49], 1_000 * cuts[98], client.errors)


def main() -> None:
    """Reads what to ask from standard input, writes what came of it."""
    asked = json.loads(sys.stdin.read())
    told = uvloop.run(_ask(**asked))
    print(json.dumps(vars(told)))


if __name__ == "__main__":
    main()
