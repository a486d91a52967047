"""A store after a small sale, served as ``fan-identity serve`` does, for the tests of the operators' page."""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from fan_identity.domain.audit import Line
from fan_identity.domain.dead_letters import LetterFilter
from fan_identity.domain.records import DeadLetter, dead_letter_id
from fan_identity.io.audit import AuditLog
from fan_identity.io.backends import open_operations, open_table
from fan_identity.io.clock import now_ms
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.worker_reports import WorkerReport, item_of
from fan_identity.serving.http.app import Application
from fan_identity.serving.http.development import DevelopmentIssuer
from fan_identity.serving.http.parts import open_parts
from fan_identity.serving.http.server import address_of, listen
from fan_identity.serving.settings import load_serving_settings

PATIENCE = 60.0
HOSTILE = """<script>document.title='owned'</script><img src=x onerror="alert(1)">"'&amp;\u202e\u0007{{7*7}}"""


@dataclass
class Operated:
    """The store, its server, and what a test puts into it."""

    store: Path
    issuer: DevelopmentIssuer
    address: str = ""
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def __post_init__(self) -> None:
        self.letters = SqliteDeadLetters(SqliteStore(self.store))
        self.operations = open_operations(self.flag)
        self.audit = AuditLog.of(self.flag)

    @property
    def flag(self) -> str:
        return f"sqlite:///{self.store}"

    @property
    def table(self) -> Any:
        return open_table(self.flag, "table", "fanIdentityTable")

    @property
    def token(self) -> str:
        """Of an operator who may act."""
        return self.issuer.token_of_operator()

    def token_with(self, scope: str) -> str:
        return self.issuer._signed({"sub": "lena", "client_id": "lena", "scope": scope})

    def report(self, worker: str = "scoreUsers", process: str = "p", **fields: Any) -> None:
        """What a process of a worker would report now."""
        now = now_ms()
        known = {
            "started_at": now - 600_000,
            "updated_at": now,
            "queue": "accountActivityQueue",
            "runner": "DirectRunner",
        }
        self.operations.put_if_newer(
            [item_of(WorkerReport(**({"worker": worker, "process": process} | known | fields)))]
        )

    def letter(self, **fields: Any) -> DeadLetter:
        """Writes a dead letter that can be sent again."""
        number = next(self._numbers)
        activity = {
            "activityId": f"again-{number}",
            "globalUserId": "fan-00042",
            "activityType": "login",
            "occurredAt": now_ms(),
        }
        known = {
            "worker": "enqueueFromStream",
            "reason": "unsendable",
            "error": "the queue refused it",
            "stack": "Traceback (most recent call last):\n  somewhere",
            "attempts": 3,
            "request_id": "r",
            "activity_id": activity["activityId"],
            "source": "kafka://broker:9092/activities#3",
            "position": f"offset {number}",
            "payload": json.dumps(activity).encode(),
        } | fields
        names = (known["worker"], known["source"], known["position"], known["payload"])
        letter = DeadLetter(dead_letter_id=dead_letter_id(*names), **known)
        self.letters.write([letter])
        return letter

    def waiting(self, reason: str | None = None) -> int:
        return self.letters.count(LetterFilter(reason=reason))

    def forget_letters(self) -> None:
        self.letters.delete([stored.letter.dead_letter_id for stored in self.letters.each()])

    def audited(self, action: str) -> Sequence[Line]:
        """Lines of an action, the newest first."""
        return [line for line in self.audit.newest(None, 200) if line.action == action]


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self.serves = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.serves.set()


@contextlib.contextmanager
def served(site: Operated, **settings: Any) -> Iterator[Operated]:
    """Serves the store in a thread."""
    loaded = load_serving_settings(store=site.flag, **{**site.issuer.settings, **settings})
    listening = listen("127.0.0.1", 0)
    server = _Server(uvicorn.Config(Application(lambda: open_parts(loaded)), lifespan="on", log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    assert server.serves.wait(PATIENCE)
    site.address = address_of(listening)
    yield site
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive()
