"""Commands started from the console, as items of the operations table: every process of the API sees the same ones.

A job is the item ``JOB``, ``<time>-<name>``. Who started it writes it, its runner marks it as its own and writes how it
ended, each as a newer version: whoever looks later, the console after a restart too, sees how far it came.
"""

import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from ...domain.activity import format_time_ms
from ...io.clock import now_ms
from ...io.errors import BackendUnavailableError
from ...io.ports import Item, Table
from ...io.process_marks import is_gone

JOB_PK: Final = "JOB"
JOB_ID: Final = r"^[0-9]{8}T[0-9]{9}Z-[0-9a-f]{8}\Z"
LONGEST_SECONDS: Final = 3_600
"""After this a command is ended, as Ctrl-C would, and after half a minute more killed."""

_START_MS: Final = 60_000
_GRACE_MS: Final = 120_000
_LOOKED_AT: Final = 200
_KEYS: Final = ("PK", "SK", "type")


class JobKind(StrEnum):
    """What runs; one of a kind at a time."""

    REDRIVE = "redrive"
    ROLLBACK = "rollback"


class JobState(StrEnum):
    """How far it is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Job(msgspec.Struct, frozen=True, rename="camel"):
    """A command that was started.

    Attributes:
        job: its name; text order is time order.
        kind: what runs.
        reference: of the action in the audit log; likewise ``subject``, ``action``, ``target`` and ``request_id``.
        state: how far it is.
        started_at: epoch milliseconds.
        ended_at: when its end was written.
        exit_code: of the command; None while it runs, and where it did not end by itself.
        summary: what the command said it did, as JSON.
        problem: why it failed, one line.
        process: the runner's mark (``io.process_marks``); "" until it runs.
    """

    job: str
    kind: JobKind
    reference: str
    subject: str
    action: str
    target: str
    request_id: str
    started_at: int
    state: JobState = JobState.RUNNING
    ended_at: int | None = None
    exit_code: int | None = None
    summary: Mapping[str, Any] = {}
    problem: str = ""
    process: str = ""

    def is_lost(self, now: int) -> bool:
        """Whether it runs no more though nobody wrote its end: its runner was killed, or never started.

        Args:
            now: epoch milliseconds.
        """
        if self.state is not JobState.RUNNING:
            return False
        age = now - self.started_at
        if not self.process:
            return age > _START_MS
        return is_gone(self.process) or age > LONGEST_SECONDS * 1_000 + _GRACE_MS


LOST: Final = "its process was ended before it could say what it did: look at its effects"


def new_job_id() -> str:
    """A job's name: the time and a few random digits."""
    digits = "".join(char for char in format_time_ms(now_ms()) if char.isdigit())
    return f"{digits[:8]}T{digits[8:17]}Z-{secrets.token_hex(4)}"


class Jobs:
    """The jobs there are.

    Every method raises BackendUnavailableError where the table is out of reach.

    Args:
        table: the operations table.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, job: Job) -> None:
        """Writes a job before its runner is started."""
        self._write("1", job)

    def claim(self, job: Job) -> bool:
        """Writes whose job it is, once its runner runs; False where its end was written before: it must not run."""
        return self._write("2", job)

    def end(self, job: Job) -> bool:
        """Writes how a job ended; False where its end was written before."""
        return self._write("3", job)

    def get(self, job: str) -> Job | None:
        """A job, or None."""
        item = self._table.get(JOB_PK, job)
        return None if item is None else _job_of(item)

    def recent(self, limit: int = _LOOKED_AT) -> list[Job]:
        """The newest jobs, the newest first."""
        return [_job_of(item) for item in self._table.query(JOB_PK, newest_first=True, limit=limit)]

    def running(self, kind: JobKind) -> Job | None:
        """The job of a kind that runs now, or None."""
        now = now_ms()
        found = (job for job in self.recent() if job.kind is kind and job.state is JobState.RUNNING)
        return next((job for job in found if not job.is_lost(now)), None)

    def _write(self, version: str, job: Job) -> bool:
        item = {"PK": JOB_PK, "SK": job.job, "type": "job", **msgspec.to_builtins(job)}
        (written,) = self._table.put_if_newer([(version, item)])
        if written is True:
            return True
        found = self.get(job.job)
        if found is None:
            raise BackendUnavailableError("the operations table does not take a job")
        return found == job  # DynamoDB may say False of a write that was made


def _job_of(item: Item) -> Job:
    return msgspec.convert({name: value for name, value in item.items() if name not in _KEYS}, Job)
