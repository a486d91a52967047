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
from ...domain.audit import START, Line, Verdict
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
    """Checks the whole chain in the background, and closes actions whose process was killed.

    That is done where there is a new head or an action is open, looked for every half a minute, and once an hour.

    Args:
        audit: the log.
        close_unfinished: closes them and says how many are open; see ``recording.close_unfinished``.
        threads: where that is done.
    """

    def __init__(self, audit: AuditLog, close_unfinished: Callable[[], int], threads: Threads) -> None:
        self._audit = audit
        self._close_unfinished = close_unfinished
        self._threads = threads
        self._task: asyncio.Task[None] | None = None
        self._open = 0
        self._checked_at = 0.0
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
        head = self._audit.head()
        seen = self.verdict is not None and self.verdict.head == (START if head is None else head.hash)
        if seen and not self._open and time.monotonic() - self._checked_at < _WHOLE_SECONDS:
            return
        self._open = self._close_unfinished()
        self.verdict = self._audit.verify()
        self._checked_at = time.monotonic()
        if not self.verdict.whole:
            _log.error("the audit log is broken", extra={"seq": self.verdict.seq, "fault": self.verdict.fault})


def audit_route(guard: Guard, audit: AuditLog, verifying: Verifying, threads: Threads) -> Route:
    """The route.

    ``verified`` is of the last check in the background, None before the first; ``head`` is the log's newest line.
    """

    async def answer(asked: Asked, page: PageOf) -> dict[str, Any]:
        del asked
        lines = await threads.ask("audit", audit.newest, page.after, page.limit)
        head = lines[0] if page.after is None and lines else await threads.ask("audit", audit.head)
        last = lines[-1].seq if len(lines) == page.limit else 1
        return {
            "lines": [_shown(line) for line in lines],
            "next": last if last > 1 else None,
            "verified": None if verifying.verdict is None else verifying.verdict.whole,
            "head": None if head is None else {"seq": head.seq, "hash": head.hash},
        }

    return guard.read("/audit", answer, PageOf)


def _shown(line: Line) -> dict[str, Any]:
    shown = {name: getattr(line, name) for name in ("seq", "subject", "action", "target", "outcome", "hash")}
    details = {name: value for name, value in line.details.items() if name != "process"}
    return {**shown, "at": format_time_ms(line.at), "details": details, "requestId": line.request_id}
