"""The audit log in the operations table: several processes append to one chain.

A line is written only where its place is free (``put_if_newer`` with one version for all): of two processes that append
at once one takes the place, and the other reads the new head and tries the next one. An appended line is durable: in
SQLite its commit is on the disk (``synchronous=FULL``), in DynamoDB it is in three data centres.
"""

import logging
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from ..domain.audit import AUDIT_PK, Entry, Line, Verdict, audit_sk, line_after, line_item, line_of, verify
from ..domain.records import Failure
from .backends import open_operations
from .clock import now_ms
from .errors import BackendUnavailableError, UsageError
from .ports import Item, Table
from .sqlite.table import SqliteTable

KEY_ENV: Final = "FAN_IDENTITY_AUDIT_KEY"
"""The environment variable that may hold the key of the lines' HMAC."""

_LEAST_KEY: Final = 32
_VERSION: Final = "1"
_TRIES: Final = 50
_LONGEST_REST_SECONDS: Final = 0.05
_PAGE: Final = 500

_log: Final = logging.getLogger("fan_identity.audit")


def audit_key() -> bytes | None:
    """The key of the environment, or None.

    Raises:
        UsageError: it is too short to protect anything.
    """
    text = os.environ.get(KEY_ENV, "").strip()
    if not text:
        return None
    if len(text) < _LEAST_KEY:
        raise UsageError(f"{KEY_ENV}: at least {_LEAST_KEY} characters, such as: openssl rand -hex 32")
    return text.encode()


def new_reference() -> str:
    """A name for an action that no other one has."""
    return secrets.token_hex(8)


class AuditLog:
    """A log that is only appended to.

    Every method raises BackendUnavailableError where the table is out of reach. Thread-safe where the table is.

    Args:
        table: the operations table; its reads must see writes answered before.
        key: of the lines' HMAC; None for SHA-256.
        clock: epoch milliseconds.
    """

    def __init__(self, table: Table, key: bytes | None = None, clock: Callable[[], int] = now_ms) -> None:
        self._table = table
        self._key = key
        self._clock = clock

    @classmethod
    def of(cls, address: str) -> "AuditLog":
        """The log of an operations address, with the key of the environment.

        Raises:
            UsageError: the address is none of a table, or the key is too short.
        """
        table = open_operations(address)
        # In SQLite on connections of its own: others on the file need not wait for the disk as this one has to.
        return cls(table.durable() if isinstance(table, SqliteTable) else table, audit_key())

    def append(self, entry: Entry) -> Line:
        """Appends a line; it is durable when this returns. The new head's hash goes to the log, for a copy elsewhere.

        Two entries that are equal, reference and all, are one action told twice: in one millisecond they are one line.

        Raises:
            BackendUnavailableError: also where the head is no line of a log: nothing can follow it.
        """
        for _ in range(_TRIES):
            line = line_after(self.head(), entry, self._clock(), self._key)
            (written,) = self._table.put_if_newer([(_VERSION, line_item(line))])
            if isinstance(written, Failure):
                raise BackendUnavailableError(f"the audit log cannot take a line: {written.error}")
            # DynamoDB may say False of a write that was made, where the answer was lost and the write tried again.
            if written or self._line(line.seq) == line:
                # A warning is what stands in the log at the level it has in production.
                _log.warning("audit", extra={"seq": line.seq, "head": line.hash, "action": line.action})
                return line
            time.sleep(random.uniform(0, _LONGEST_REST_SECONDS))  # noqa: S311 - others append at this moment
        raise BackendUnavailableError("the audit log has no free place: too many append to it at once")

    def head(self) -> Line | None:
        """The last line, or None of an empty log.

        Raises:
            BackendUnavailableError: the last item is no line.
        """
        item = self._last_item()
        if item is None:
            return None
        line = line_of(item)
        if line is None or line.seq != _place_of(item):
            raise BackendUnavailableError("the audit log is damaged at its end: see fan-identity audit verify")
        return line

    def newest(self, before: int | None, limit: int) -> list[Line]:
        """Lines before a place (None for the newest), the newest first; places that hold no line are left out."""
        if before is None:
            head = self.head()
            before = 1 if head is None else head.seq + 1
        seqs = range(before - 1, max(before - 1 - limit, 0), -1)
        items = self._table.batch_get([(AUDIT_PK, audit_sk(seq)) for seq in seqs])
        return [line for item in items if item is not None and (line := line_of(item)) is not None]

    def items(self, told: Callable[[int], object] = lambda _: None, start: int = 1) -> Iterator[Item | None]:
        """Every item in the order of its place, with None in each place that is empty; an item of no place comes last.

        Args:
            told: hears how far was read.
            start: the place to begin at.
        """
        last = self._last_item()
        stray = last is not None and _place_of(last) is None
        end = None if stray else _place_of(last or {}) or 0
        while end is None or start <= end:
            seqs = range(start, start + _PAGE if end is None else min(start + _PAGE, end + 1))
            page = self._table.batch_get([(AUDIT_PK, audit_sk(seq)) for seq in seqs])
            if end is None:  # nothing says where the log ends: where no more is
                while page and page[-1] is None:
                    page.pop()
            yield from page
            told(start + len(page) - 1)
            if len(page) < len(seqs):
                break
            start += _PAGE
        if stray:
            yield last

    def size(self) -> int:
        """The last line's place, 0 of an empty log: what ``items`` counts up to."""
        last = self._last_item()
        return 0 if last is None else _place_of(last) or 0

    @property
    def has_key(self) -> bool:
        """Whether lines are written, and checked, with a key."""
        return self._key is not None

    def verify(self, told: Callable[[int], object] = lambda _: None, **noted: Any) -> Verdict:
        """Checks the whole log: ``domain.audit.verify`` over ``items``, with this log's key.

        Args:
            told: hears how many lines were read so far.
            noted: ``head``, ``count`` and ``keyed_from`` of ``domain.audit.verify``.
        """
        return verify(self.items(told), self._key, **noted)

    def verify_behind(self, checked: Verdict) -> Verdict:
        """Checks what is new behind a whole verdict, and that its last line is still what it was.

        A later change of an earlier line does not show here: ``verify`` alone reads it again.
        """
        return verify(self.items(start=max(checked.lines, 1)), self._key, keyed_from=None, checked=checked)

    def _last_item(self) -> Item | None:
        found = self._table.query(AUDIT_PK, newest_first=True, limit=1)
        return found[0] if found else None

    def _line(self, seq: int) -> Line | None:
        item = self._table.get(AUDIT_PK, audit_sk(seq))
        return None if item is None else line_of(item)


def _place_of(item: Item) -> int | None:
    """The place an item's sort key says, or None where it says none."""
    sk = str(item.get("SK", ""))
    return int(sk) if sk.isascii() and sk.isdecimal() and sk == audit_sk(int(sk)) else None
