"""checkLiveness: a round of probes, and telling of outages; the same for the command, the schedule and the Lambda."""

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from ..domain.liveness import (
    Outage,
    Probed,
    after_probe,
    claimed,
    given_back,
    is_free,
    notice_of,
    told,
)
from .alerts import Webhook
from .clock import now_ms
from .errors import FanIdentityError
from .outages import OutageBook, local_place
from .ports import Table
from .probes import Part, Prober, bare_address
from .process_marks import is_gone, process_mark
from .settings import Settings

WORKER: Final = "checkLiveness"
"""The worker's name in the reference, which ``APP_NAME`` selects."""

Say = Callable[[str], None]

_TRIES: Final = 5
_SENDING_SECONDS: Final = 10.0
_log: Final = logging.getLogger("fan_identity.liveness")


class Teller:
    """Tells of outages, each once: what is owed is written down before it is sent, and crossed out after.

    A process killed in between leaves a claim: it lapses after half a minute, at once where the process is known to be
    gone, and the notice is sent again, under the same ``dedup_key``. What the webhook does not take stays owed.

    Args:
        book: what was told so far.
        webhook: who is told.
        deployment: tells installations apart in ``dedup_key``.
        operations: the part that is the operations table; "" where there is none.
        say: told of what went wrong, for people.
        clock: epoch milliseconds.
    """

    def __init__(
        self,
        book: OutageBook,
        webhook: Webhook,
        deployment: str,
        operations: str,
        say: Say,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._book = book
        self._webhook = webhook
        self._deployment = deployment
        self._operations = operations
        self._say = say
        self._clock = clock
        self._process = process_mark()

    @classmethod
    def of(cls, settings: Settings, parts: Sequence[Part], say: Say) -> "Teller | None":
        """Who tells the webhook of the environment; None where there is none: then nothing is kept either.

        Args:
            settings: the operations table.
            parts: that are probed.
            say: told of what went wrong, for people.

        Raises:
            UsageError: the webhook's URL is wrong.
        """
        webhook = Webhook.from_environment()
        if webhook is None:
            return None
        named = settings.operations or settings.store or settings.table
        place = "" if named is None else bare_address(named)
        holder = "" if named is None else next((one.name for one in parts if one.is_at(named)), "")
        table = None if named is None else partial(_operations_table, settings)
        identity = place or ",".join(one.address for one in parts)
        seconds = settings.probe_deadline.total_seconds()
        book = OutageBook(table, local_place(identity), seconds, say)
        return cls(book, webhook, hashlib.sha256(identity.encode()).hexdigest()[:8], holder, say)

    def tell(self, probed: Sequence[Probed]) -> int:
        """Heeds what a round found: notes outages that begin and end, and sends what is owed.

        A webhook that fails is not asked for the other notices of the round, and one that is slow only for those of ten
        seconds: they wait for the next one.

        Returns:
            How many notices were sent.
        """
        known = self._book.read(reachable=all(one.up for one in probed if one.part == self._operations))
        for one in probed:
            changed = after_probe(known.get(one.part), one, self._clock())
            if changed is not None and self._book.write(changed):  # where not, another checker did
                known[one.part] = changed
                if changed.down and changed.owed:
                    _log.warning("a part is down", extra={"part": one.part, "problem": one.problem})
        sent, ends = 0, time.monotonic() + _SENDING_SECONDS
        for part in dict.fromkeys((*(one.part for one in probed), *known)):  # in the order of importance
            current = known.get(part, Outage(part))
            while current.owed and is_free(current, self._clock(), claimer_is_gone=self._left(current.claim)):
                after = self._send(current) if time.monotonic() < ends else None
                if after is None:
                    return sent
                current, done = after
                sent += done
        return sent

    def _send(self, outage: Outage) -> tuple[Outage, bool] | None:
        """Sends what is owed first; None where the webhook did not take it."""
        mine = claimed(outage, self._process, self._clock())
        if not self._book.write(mine):
            return Outage(outage.part), False  # another checker tells
        try:
            self._webhook.send(notice_of(mine, self._deployment))
        except FanIdentityError as error:
            self._say(f"{outage.part}: not told yet, {error}; the next round tries again")
            self._cross_out(mine, given_back)
            return None
        return self._cross_out(mine, told), True

    def _left(self, claim: str) -> bool:
        """Whether who claimed a notice will not send it: it ended, or it is this process, which is at its beginning."""
        return bool(claim) and (claim == self._process or is_gone(claim))

    def _cross_out(self, mine: Outage, change: Callable[[Outage], Outage]) -> Outage:
        """Writes what became of a notice, over what other checkers wrote meanwhile."""
        current = mine
        for _ in range(_TRIES):
            after = change(current)
            if self._book.write(after):
                return after
            found = self._book.read().get(mine.part)
            if found is None or (found.claim, found.claimed_at) != (mine.claim, mine.claimed_at):
                break  # it took so long that another checker took it over
            current = found
        return Outage(mine.part)


def _operations_table(settings: Settings) -> Table:
    from .backends import open_operations, operations_address  # noqa: PLC0415 - with all backends; where it is needed

    return open_operations(operations_address(settings))


class LivenessCheck:
    """Rounds of probes, as long as the worker is not switched off by its flag.

    Args:
        settings: the deadline and the flag server.
        parts: what is probed.
    """

    def __init__(self, settings: Settings, parts: Sequence[Part]) -> None:
        self._settings = settings
        self._seconds = settings.probe_deadline.total_seconds()
        self._prober = Prober(parts, self._seconds)

    def round(self) -> list[Probed] | None:
        """Asks every part once, in the deadline and a little; None where the worker is switched off."""
        if self._settings.flags is None:
            return self._prober.round()
        enabled: list[bool] = []
        asked = threading.Thread(target=lambda: enabled.append(self._is_enabled()), name="ask flag", daemon=True)
        ends = time.monotonic() + self._seconds
        asked.start()
        found = self._prober.round()
        asked.join(max(0.0, ends - time.monotonic()))
        return None if enabled == [False] else found

    def _is_enabled(self) -> bool:
        """Only a flag that says so switches the worker off: who watches the flag server must not end with it."""
        from .backends import open_flags  # noqa: PLC0415 - as above

        return open_flags(self._settings.flags, True, self._settings.flags_folder).is_enabled(WORKER)


class TellerThread:
    """Tells in a thread of its own, so that probes are never late; of rounds that wait, the newest counts."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._rounds: queue.Queue[Sequence[Probed] | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, name="fan-identity-alerts", daemon=True)
        self._thread.start()

    def put(self, probed: Sequence[Probed] | None) -> None:
        """Hands a round over, without waiting; None to end."""
        while True:
            try:
                self._rounds.put_nowait(probed)
            except queue.Full:
                with suppress(queue.Empty):
                    self._rounds.get_nowait()
            else:
                return

    def close(self, seconds: float) -> None:
        """Ends after what is being told now, waiting no longer than ``seconds``."""
        self.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (probed := self._rounds.get()) is not None:
            try:
                self._teller.tell(probed)
            except Exception:  # the next round tries again
                _log.exception("outages could not be told")
