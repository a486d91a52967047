"""A lock against two runs of one job at once, kept in the table the job writes to.

A lease is the item ``PK = LOCK#<job>``, ``SK = LOCK``. It is taken, renewed and given back by compare-and-swap: each
write has a version one above the one read, and ``Table.put_if_newer`` refuses the later of two with the same. Who holds
it renews it; who was killed does not, and it ends by itself, at once where the next run is on the same machine.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from ..domain.activity import format_time_ms
from ..domain.records import Failure
from .clock import now_ms
from .errors import FanIdentityError
from .ports import Table
from .process_marks import is_gone, process_mark

LEASE_SK: Final = "LOCK"

_log = logging.getLogger(__name__)


class LeaseHeldError(FanIdentityError):
    """Another run of the job is at work: the message says whose, since when, and until when it holds the lock."""


class LeaseLostError(FanIdentityError):
    """The lock ended before the job did (the process was stopped, or the table out of reach), and another took it."""


class _Held(msgspec.Struct, frozen=True, rename="camel"):
    """A lease's item besides its keys. ``run`` tells two runs of one owner apart; times are epoch milliseconds."""

    owner: str = ""
    process: str = ""
    run: str = ""
    acquired_at: int = 0
    expires_at: int = 0
    token: int = 0


def this_process() -> str:
    """Names this process to people: ``host pid 123``."""
    return f"{socket.gethostname()} pid {os.getpid()}"


def lease_pk(job: str) -> str:
    """The partition key of a job's lock: ``LOCK#<job>``."""
    return f"LOCK#{job}"


class Lease:
    """Holds a job's lock while a ``with`` block runs; renews it in a thread.

    At most one run holds a lease, as long as the machines' clocks agree to a third of ``ttl_seconds``: its holder stops
    trusting it after two thirds without a renewal, another takes it after all of it. A job calls ``check`` before each
    effect that must not be made twice.

    Args:
        table: where the lock is kept; its reads must see writes answered before (both tables' do).
        job: what must not run twice at once: ``import cluster``.
        owner: who runs it, for people; this process where None.
        ttl_seconds: how long a lease lasts that is not renewed: a killed run's job can start again after it.
        clock: epoch milliseconds.
    """

    def __init__(
        self,
        table: Table,
        job: str,
        owner: str | None = None,
        ttl_seconds: float = 30.0,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._table = table
        self._job = job
        self._owner = owner or this_process()
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._process = process_mark()
        self._run = secrets.token_hex(8)
        self._held = _Held()
        self._renewed = 0.0
        self._lost = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def token(self) -> int:
        """How often the job's lock was written: of two holders the later one has the greater number."""
        return self._held.token

    def __enter__(self) -> Self:
        """Takes the lease.

        Raises:
            LeaseHeldError: another run holds it.
            BackendUnavailableError: the table is out of reach.
        """
        started = time.monotonic()
        found = self._read()
        now = self._clock()
        if found.expires_at > now and not is_gone(found.process):
            raise self._held_by(found)
        wanted = self._mine(now, now, found.token + 1)
        if not self._swap(wanted):
            raise self._held_by(self._read())
        self._held, self._renewed, self._lost = wanted, started, False
        self._ended.clear()
        self._thread = threading.Thread(target=self._keep, name=f"fan-identity-lease {self._job}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the lease back, if it is still held; where the table is out of reach it ends by itself."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._lost:
                return
            try:
                self._swap(_Held(token=self._held.token + 1))
            except FanIdentityError as problem:
                _log.warning("a lock ends by itself", extra={"job": self._job, "error": str(problem)})

    def check(self) -> None:
        """Makes sure that the lease is still held. Asks nobody as long as renewals keep up.

        Raises:
            LeaseLostError: another run has taken it; nothing more must be written.
            BackendUnavailableError: it was not renewed in time, and the table is out of reach.
        """
        with self._lock:
            if not self._lost and time.monotonic() - self._renewed >= self._ttl_seconds * 2 / 3:
                # Late, yet nobody else's: if the swap is won, no other run held it in between.
                self._renew()
            if self._lost:
                raise LeaseLostError(
                    f"{self._job}: another run took the lock over, since this one did not renew it for "
                    f"{self._ttl_seconds:g} s; what is written so far stays, run the command again after the other"
                )

    def _keep(self) -> None:
        rest = self._ttl_seconds / 3
        while not self._ended.wait(rest):
            try:
                with self._lock:
                    self._renew()
                    if self._lost:
                        return
            except FanIdentityError as error:
                _log.warning("a lock was not renewed", extra={"job": self._job, "error": str(error)})
                rest = self._ttl_seconds / 12
            else:
                rest = self._ttl_seconds / 3

    def _renew(self) -> None:
        started, now = time.monotonic(), self._clock()
        wanted = self._mine(self._held.acquired_at, now, self._held.token + 1)
        if self._swap(wanted):
            self._held, self._renewed = wanted, started
        else:
            self._lost = True

    def _mine(self, acquired_at: int, now: int, token: int) -> _Held:
        return _Held(self._owner, self._process, self._run, acquired_at, now + int(self._ttl_seconds * 1_000), token)

    def _swap(self, wanted: _Held) -> bool:
        item: dict[str, Any] = {
            "PK": lease_pk(self._job),
            "SK": LEASE_SK,
            "type": "lock",
            **msgspec.to_builtins(wanted),
        }
        (written,) = self._table.put_if_newer([(f"{wanted.token:012d}", item)])
        if isinstance(written, Failure):
            raise AssertionError(f"the table refuses the lock of {self._job}: {written.error}")
        # DynamoDB may say False of a write that was made, where the answer was lost and the write tried again.
        return written or self._read() == wanted

    def _read(self) -> _Held:
        item = self._table.get(lease_pk(self._job), LEASE_SK)
        return _Held() if item is None else msgspec.convert(item, _Held)

    def _held_by(self, other: _Held) -> LeaseHeldError:
        return LeaseHeldError(
            f"{self._job} is being run by {other.owner or 'another run'} since {format_time_ms(other.acquired_at)}; "
            f"wait for it (if it was killed, its lock ends at {format_time_ms(other.expires_at)})"
        )
