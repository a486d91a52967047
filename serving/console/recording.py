"""Actions in the audit log: the line of a beginning is durable before anything happens, that of the end follows."""

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec

from ...domain.audit import Entry, Line, Outcome, subject_of, unfinished
from ...io.audit import AuditLog, new_reference
from ...io.clock import now_ms
from ...io.errors import FanIdentityError
from ...io.leases import Lease, LeaseHeldError
from ...io.ports import Table
from ...io.process_marks import is_gone, process_mark
from .guard import Asked
from .jobs import LOST, Job, Jobs, JobState
from .runner import end_of
from .threads import Threads

_OLD_MS: Final = 2 * 3_600_000
_LOOKED_AT: Final = 2_000
_log: Final = logging.getLogger("fan_identity.audit")


class Recorder:
    """Writes the lines of actions.

    Args:
        audit: the log.
        threads: where it is written.
    """

    def __init__(self, audit: AuditLog, threads: Threads) -> None:
        self._audit = audit
        self._threads = threads
        self._process = process_mark()

    async def begin(self, asked: Asked, action: str, target: str, details: Mapping[str, str | int]) -> Entry:
        """Writes that an action begins. What it does may be done once this returns, and not before.

        Args:
            asked: whose request it is.
            action: what is done, as ``domain.audit.Entry`` has it.
            target: what to.
            details: numbers and short texts without personal data.

        Raises:
            BackendUnavailableError: it cannot be written: nothing must be done.
        """
        entry = Entry(
            new_reference(),
            subject_of(asked.identity),
            action,
            target,
            Outcome.BEGUN,
            {**details, "process": self._process},
            asked.request_id,
        )
        await self._threads.write(self._audit.append, entry)
        return entry

    async def end(self, begun: Entry, outcome: Outcome, details: Mapping[str, str | int] | None = None) -> None:
        """Writes how an action ended.

        Where that cannot be written the line of its beginning stands, and is closed later (``close_unfinished``): the
        answer must not say that what was done was not.

        Args:
            begun: what ``begin`` gave.
            outcome: how.
            details: of the end; those of the beginning stand there.
        """
        entry = msgspec.structs.replace(begun, outcome=outcome, details=details or {})
        try:
            await self._threads.write(self._audit.append, entry)
        except FanIdentityError as error:
            _log.error("the end of an action is not in the audit log yet: %s", error)


def close_unfinished(audit: AuditLog, jobs: Jobs, table: Table) -> int:
    """Closes actions whose process was killed: by their job's result, and as unknown where there is none.

    Of several consoles one does it at a time.

    Returns:
        How many are left open: they go on, or another console closes them.
    """
    if not unfinished(audit.newest(None, _LOOKED_AT)[::-1]):
        return 0
    with _alone(table) as alone:
        left = unfinished(audit.newest(None, _LOOKED_AT)[::-1])
        if not alone:
            return len(left)
        entries = [entry for line in left if (entry := _end_of(line, jobs)) is not None]
        for entry in entries:
            audit.append(entry)
        return len(left) - len(entries)


@contextmanager
def _alone(table: Table) -> Generator[bool]:
    lease = Lease(table, "console audit")
    try:
        lease.__enter__()
    except LeaseHeldError:
        yield False
        return
    try:
        yield True
    finally:
        lease.__exit__(None, None, None)


def _end_of(line: Line, jobs: Jobs) -> Entry | None:
    """The entry that closes a begun line, or None where its action may still go on."""
    job = jobs.get(str(line.details["job"])) if "job" in line.details else None
    if job is not None:
        if job.is_lost(now_ms()):
            job = _ended_as_lost(job, jobs)
        return None if job.state is JobState.RUNNING else end_of(job)
    if not is_gone(str(line.details.get("process", ""))) and now_ms() - line.at < _OLD_MS:
        return None
    return Entry(
        line.reference, line.subject, line.action, line.target, Outcome.UNKNOWN, {"closed": "later"}, line.request_id
    )


def _ended_as_lost(job: Job, jobs: Jobs) -> Job:
    lost = msgspec.structs.replace(job, state=JobState.FAILED, ended_at=now_ms(), problem=LOST)
    return lost if jobs.end(lost) else jobs.get(job.job) or lost
