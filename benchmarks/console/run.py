"""``make bench-console``: every page and question of the console, with a million dead letters and ten million scores.

The server is a process of its own, as ``fan-identity serve``; this one asks it, one request after the other, as a
browser does. Dead letters are counted and the audit log is checked in the background meanwhile, as always.
"""

import argparse
import http.client
import json
import os
import platform
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from ...serving.http.development import DevelopmentIssuer
from ..run import machine
from .store import ACTIVITY, SCORES_A_FAN, store_of

TARGET_MS: Final = 200
_OPERATORS: Final = 50
"""Requests are asked by so many in turn: each is limited by itself."""

_HISTORY: Final = "query FanHistory($id: ID!) { fan(globalUserId: $id) { history(limit: 50) { occurredAt armRisk } } }"


@dataclass(frozen=True)
class Question:
    """A request: its name in the table, path, and body where it is a POST."""

    name: str
    path: str
    body: bytes | None = None


def main() -> None:
    """Makes the store, starts the server, asks, and prints the table; exits with 1 where a page is over the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=1_000_000)
    parser.add_argument("--scores", type=int, default=10_000_000)
    parser.add_argument("--requests", type=int, default=100, help="of each question")
    parser.add_argument("--folder", type=Path, help="where the store is kept, for the next run too")
    arguments = parser.parse_args()
    kept = arguments.folder
    with nullcontext(str(kept)) if kept else tempfile.TemporaryDirectory(prefix="bench-console-") as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        path = store_of(folder, arguments.letters, arguments.scores)
        print(f"{machine()}; Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
        print(f"{arguments.letters:,} dead letters, {arguments.scores:,} scores, {path.stat().st_size / 1e9:.1f} GB")
        sys.exit(_measure(folder, path, arguments.requests, arguments.scores // SCORES_A_FAN))


def _measure(folder: Path, path: Path, requests: int, fans: int) -> int:
    issuer = DevelopmentIssuer.started(folder)
    tokens = [issuer.token_of_operator(f"operator-{number}") for number in range(_OPERATORS)]
    settings = {f"FAN_IDENTITY_{name.upper()}": value for name, value in issuer.settings.items()}
    command = [str(Path(sys.executable).with_name("fan-identity")), "serve", "--port", "0", "--json"]
    # An absolute path has a slash of its own.
    environment = {**os.environ, **settings, "FAN_IDENTITY_STORE": f"sqlite:///{path.absolute()}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            address = _address_of(server)
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
            _ask(connection, tokens[0], Question("", "/console/api/dead-letters/summary"))
            questions = _questions(connection, tokens[0], fans)
            return _table([(one, _timed(connection, tokens, one, requests)) for one in questions])
        finally:
            server.terminate()


def _address_of(server: "subprocess.Popen[bytes]") -> str:
    told = b"" if server.stdout is None else server.stdout.readline()
    if not told:
        raise SystemExit("the server does not start: try fan-identity serve")
    return str(json.loads(told)["address"])


def _questions(connection: http.client.HTTPConnection, token: str, fans: int) -> list[Question]:
    """All that the page asks; ids and cursors are of letters that are there."""

    def letters(name: str, **query: Any) -> Question:
        return Question(f"dead letters: {name}", f"/console/api/dead-letters?{urlencode(query)}")

    first: Any = json.loads(_ask(connection, token, letters("", limit=200)))
    letter = first["letters"][0]["id"]
    half = json.loads(_ask(connection, token, letters("", to="2026-09-30T00:00:00Z", limit=1)))["next"] or first["next"]
    page = _ask(connection, token, Question("", "/console")).decode()
    files = sorted(set(re.findall(r'(?:src|href)="(/?pages/[^"]+)"', page)))
    history = json.dumps({"query": _HISTORY, "variables": {"id": f"fan-{fans // 2:08d}"}}).encode()
    return [
        Question("page", "/console"),
        *(Question(f"page: {name}", "/" + name.lstrip("/")) for name in files),
        *(Question(name, f"/console/api/{name}") for name in ("me", "flow", "flags", "imports", "audit", "jobs")),
        Question("import compared", "/console/api/imports/cluster/20261110T231500Z-1a2b3c4d"),
        Question("dead letters: summary", "/console/api/dead-letters/summary"),
        letters("newest that wait"),
        letters("newest, all", state="all"),
        letters("sent again", state="redriven"),
        letters("from the middle on", after=half),
        letters("of a worker", worker="scoreUsers"),
        letters("of a reason", reason="malformed"),
        letters("of a rare reason", reason="unreadable"),
        letters("of a reason nobody has", reason="nothing"),
        letters("of worker and reason", worker="scoreUsers", reason="malformed"),
        letters("of an activity", activity=ACTIVITY, state="all"),
        letters("of a minute", **{"from": "2026-09-21T15:00:00Z", "to": "2026-09-21T15:01:00Z"}),
        letters("200 a page", limit=200),
        Question("a dead letter", f"/console/api/dead-letters/{letter}"),
        Question("a dead letter revealed", f"/console/api/dead-letters/{letter}/reveal", b"{}"),
        Question("a fan's history (GraphQL)", "/graphql", history),
    ]


def _timed(
    connection: http.client.HTTPConnection, tokens: Sequence[str], question: Question, requests: int
) -> list[float]:
    """Milliseconds of each request, sorted; the first ones of a kind count too."""
    took: list[float] = []
    for number in range(requests):
        began = time.perf_counter()
        _ask(connection, tokens[number % len(tokens)], question)
        took.append(1_000 * (time.perf_counter() - began))
    return sorted(took)


def _ask(connection: http.client.HTTPConnection, token: str, question: Question) -> bytes:
    headers = {"Authorization": f"Bearer {token}"}
    if question.body is not None:
        headers["Content-Type"] = "application/json"
    connection.request("GET" if question.body is None else "POST", question.path, question.body, headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK or b'"errors"' in body[:20]:
        raise SystemExit(f"{question.path}: {answer.status} {body[:300]!r}")
    return body


def _table(measured: Sequence[tuple[Question, list[float]]]) -> int:
    print(f"\n{'':<36}{'p50 ms':>9}{'p95 ms':>9}{'worst ms':>10}   target {TARGET_MS} ms")
    over = 0
    for question, took in measured:
        p95, worst = took[int(0.95 * (len(took) - 1))], took[-1]
        over += p95 > TARGET_MS
        verdict = "over" if p95 > TARGET_MS else "met, the worst is over" if worst > TARGET_MS else "met"
        print(f"{question.name:<36}{statistics.median(took):>9.1f}{p95:>9.1f}{worst:>10.1f}   {verdict}")
    slowest = max(took[int(0.95 * (len(took) - 1))] for _, took in measured)
    print(f"\nslowest p95 {slowest:.1f} ms of {TARGET_MS} ms ({slowest / TARGET_MS:.2f} of the target)")
    return 1 if over else 0


if __name__ == "__main__":
    main()
