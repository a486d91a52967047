"""The console's audit log: its lines, newest first, and whether the chain is whole."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from starlette.routing import Route

from ...domain.activity import format_time_ms
from ...domain.audit import NOTHING_CHECKED, Line, Verdict
from ...io.audit import AuditLog
from ...io.errors import FanIdentityError
from .guard import Asked, Guard
from .threads import Threads

_FRESH_SECONDS: Final = 30.0
_WHOLE_SECONDS: Final = 3_600.0
_log: Final = logging.getLogger("fan_identity.audit")


class PageOf(msgspec.Struct, forbid_unknown_fields=True):
    """A page: ``after`` is the ``next`` of the page before."""

    after: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


class Verifying:
    """Checks the chain in the background, and closes actions whose process was killed.

    Every half a minute what is new behind the last whole verdict, whose last line must still be there as it was: so a
    tail that is cut off while the server runs shows. The whole chain at the start, once an hour, and as long as it is
    broken. A log may be older than its key: lines from the first keyed one on must be made with it, and once that line
    was seen nothing moves it.

    Args:
        audit: the log.
        close_unfinished: closes them and says how many are open; see ``recording.close_unfinished``. Done where there
            is a new head or an action is open.
        threads: where that is done.
    """

    def __init__(self, audit: AuditLog, close_unfinished: Callable[[], int], threads: Threads) -> None:
        self._audit = audit
        self._close_unfinished = close_unfinished
        self._threads = threads
        self._task: asyncio.Task[None] | None = None
        self._open = 0
        self._whole = NOTHING_CHECKED
        self._whole_read_at = 0.0
        self.verdict: Verdict | None = None

    def start(self) -> None:
        """Begins, on the running event loop."""
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ends."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._threads.behind(self._check)
            except FanIdentityError as error:
                _log.warning("the audit log cannot be checked: %s", error)
            except Exception:
                _log.exception("the audit log cannot be checked: this is a defect of fan-identity")
            await asyncio.sleep(max(_FRESH_SECONDS, 20 * (time.monotonic() - began)))

    def _check(self) -> None:
        before = None if self.verdict is None else self.verdict.head
        self.verdict = self._verified()
        if self.verdict.head != before or self._open:
            self._open = self._close_unfinished()
            self.verdict = self._verified()
        if not self.verdict.whole:
            _log.error("the audit log is broken", extra={"seq": self.verdict.seq, "fault": self.verdict.fault})

    def _verified(self) -> Verdict:
        known, now = self._whole, time.monotonic()
        if self.verdict is not None and self.verdict.whole and now - self._whole_read_at < _WHOLE_SECONDS:
            verdict = self._audit.verify_behind(known)
        else:
            verdict = self._audit.verify(head=known.head, count=known.lines, keyed_from=known.keyed_from)
            self._whole_read_at = now
        if verdict.whole:
            self._whole = verdict
        return verdict


def audit_route(guard: Guard, audit: AuditLog, verifying: Verifying, threads: Threads) -> Route:
    """The route.

    ``verified`` and ``unkeyed`` are of the last check in the background, None before the first; ``head`` is the log's
    newest line. ``unkeyed`` is how many lines are older than the key, and so not protected by it; None without a key.
    """

    async def answer(asked: Asked, page: PageOf) -> dict[str, Any]:
        del asked
        lines = await threads.ask("audit", audit.newest, page.after, page.limit)
        head = lines[0] if page.after is None and lines else await threads.ask("audit", audit.head)
        last = lines[-1].seq if len(lines) == page.limit else 1
        verdict = verifying.verdict
        return {
            "lines": [_shown(line) for line in lines],
            "next": last if last > 1 else None,
            "verified": None if verdict is None else verdict.whole,
            "unkeyed": verdict.unkeyed if verdict is not None and audit.has_key else None,
            "head": None if head is None else {"seq": head.seq, "hash": head.hash},
        }

    return guard.read("/audit", answer, PageOf)


def _shown(line: Line) -> dict[str, Any]:
    shown = {name: getattr(line, name) for name in ("seq", "subject", "action", "target", "outcome", "hash")}
    details = {name: value for name, value in line.details.items() if name != "process"}
    return {**shown, "at": format_time_ms(line.at), "details": details, "requestId": line.request_id}
