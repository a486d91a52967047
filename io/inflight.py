"""What a receiver holds of a remote queue: messages fetched ahead, and messages in work, until deleted or given back.

The rules of order live here, apart from any service: messages of one key are handed out in their sequence, and none
while an earlier one of the key is still in work. A FIFO queue keeps a group locked while its messages are in flight;
what was fetched ahead is already in flight, so the lock has to be kept here.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from .ports import ReceivedMessage

_NEVER: Final = math.inf


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message as it was fetched.

    Attributes:
        message: what the worker gets.
        order_key: messages of one key are in order; the message's own id where the queue has no order.
        sequence: its place among those of its key.
    """

    message: ReceivedMessage
    order_key: str
    sequence: int


class _Held:
    """A delivery held here; ``renew_at`` is on the monotonic clock, infinite once the message is given up."""

    __slots__ = ("delivery", "fetched_at", "in_work", "renew_at")

    def __init__(self, delivery: Delivery, fetched_at: float, renew_at: float) -> None:
        self.delivery = delivery
        self.fetched_at = fetched_at
        self.renew_at = renew_at
        self.in_work = False

    @property
    def receipt(self) -> str:
        return self.delivery.message.receipt


class InFlight:
    """Messages held by this process; safe to use from several threads.

    Args:
        renew_after_s: how long after a message was fetched or renewed its visibility is to be extended, seconds.
        room: how many messages are fetched ahead; grows to the largest ``limit`` asked for.
        clock: seconds that only grow; tests pass their own.
    """

    def __init__(self, renew_after_s: float, room: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._renew_after_s = renew_after_s
        self._room = room
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._held: dict[str, _Held] = {}
        self._newest: dict[str, str] = {}  # by message id the receipt of its newest delivery
        self._ahead: dict[str, list[_Held]] = {}  # fetched and not handed out, by key, a key's in sequence
        self._in_work: Counter[str] = Counter()  # by key
        self._count_ahead = 0
        self._closed = False

    def wait_for_room(self, timeout_s: float) -> bool:
        """Waits until there is room to fetch more; False where there is none yet, or after ``close``."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._count_ahead < self._room, timeout_s)
            return not self._closed and self._count_ahead < self._room

    def add(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Takes in what one fetch brought.

        A message that is held already was delivered anew because its visibility had ended: the older delivery is
        worth nothing any more. Where that one is in work, the new one waits behind it.

        Returns:
            Receipts to give back: all of them after ``close``, else none.
        """
        with self._lock:
            if self._closed:
                return [delivery.message.receipt for delivery in deliveries]
            now = self._clock()
            for delivery in deliveries:
                if delivery.message.receipt in self._held:
                    continue
                self._outdate(delivery.message.message_id)
                held = _Held(delivery, now, now + self._renew_after_s)
                self._held[held.receipt] = held
                self._newest[delivery.message.message_id] = held.receipt
                self._ahead.setdefault(delivery.order_key, []).append(held)
                self._count_ahead += 1
            for key in {delivery.order_key for delivery in deliveries} & self._ahead.keys():
                self._ahead[key].sort(key=lambda held: held.delivery.sequence)
            return []

    def _outdate(self, message_id: str) -> None:
        older = self._held.get(self._newest.get(message_id, ""))
        if older is None:
            return
        if older.in_work:
            older.renew_at = _NEVER
        else:
            self._remove(older)

    def take(self, limit: int) -> list[ReceivedMessage]:
        """Hands out up to ``limit`` messages, a key's in sequence and together, keys in the order they came.

        A key with messages in work has to wait until they are deleted or given back.
        """
        taken: list[_Held] = []
        with self._changed:
            self._room = max(self._room, limit)
            for key in list(self._ahead):
                if len(taken) >= limit:
                    break
                if key in self._in_work:
                    continue
                ahead = self._ahead[key]
                own = ahead[: limit - len(taken)]
                for held in own:
                    held.in_work = True
                self._in_work[key] += len(own)
                del ahead[: len(own)]
                if not ahead:
                    del self._ahead[key]
                taken += own
            self._count_ahead -= len(taken)
            self._changed.notify_all()
        return [held.delivery.message for held in taken]

    def give_up(self, receipts: Iterable[str]) -> list[str]:
        """Ends the renewal of messages that are about to be deleted or given back.

        Returns:
            The receipts to name to the service: those given, and the newer ones of messages delivered anew since.
        """
        with self._lock:
            named: dict[str, None] = dict.fromkeys(receipts)
            for receipt in list(named):
                held = self._held.get(receipt)
                if held is not None:
                    named[self._newest.get(held.delivery.message.message_id, receipt)] = None
            for receipt in named:
                if receipt in self._held:
                    self._held[receipt].renew_at = _NEVER
            return list(named)

    def with_followers(self, receipts: Iterable[str]) -> list[str]:
        """The receipts, and those of messages fetched ahead that come after them in their keys; these are forgotten.

        Whoever gives a message back gives back what must not overtake it.
        """
        with self._lock:
            named = dict.fromkeys(receipts)
            keys = dict.fromkeys(self._held[receipt].delivery.order_key for receipt in named if receipt in self._held)
            named.update(dict.fromkeys(self._drop_ahead(keys)))
            return list(named)

    def forget(self, receipts: Iterable[str]) -> None:
        """Forgets messages that are deleted or given back; unlocks their keys."""
        with self._lock:
            for receipt in receipts:
                held = self._held.get(receipt)
                if held is not None:
                    self._remove(held)

    def due(self, most: int) -> list[tuple[str, float]]:
        """Messages whose visibility is to be extended now.

        Returns:
            Receipts, each with how long ago the message was fetched, seconds.
        """
        now = self._clock()
        with self._lock:
            due: list[tuple[str, float]] = []
            for receipt, held in self._held.items():
                if held.renew_at <= now:
                    due.append((receipt, now - held.fetched_at))
                    if len(due) >= most:
                        break
            return due

    def renewed(self, receipts: Iterable[str]) -> None:
        """Notes that visibility was extended just now."""
        renew_at = self._clock() + self._renew_after_s
        with self._lock:
            for receipt in receipts:
                held = self._held.get(receipt)
                if held is not None and held.renew_at != _NEVER:
                    held.renew_at = renew_at

    def lost(self, receipts: Iterable[str]) -> list[str]:
        """Forgets messages whose receipt the service no longer knows: someone else may have received them.

        One in work stays in work, since whoever has it will finish it.

        Returns:
            Receipts to give back: what was fetched ahead behind the lost ones.
        """
        with self._lock:
            keys: dict[str, None] = {}
            for receipt in receipts:
                held = self._held.get(receipt)
                if held is None or held.renew_at == _NEVER:
                    continue  # deleted or given back meanwhile
                held.renew_at = _NEVER
                keys[held.delivery.order_key] = None
                if not held.in_work:
                    self._remove(held)
            return self._drop_ahead(keys)

    def close(self) -> list[str]:
        """Takes in and hands out nothing any more.

        Returns:
            Receipts to give back: everything fetched ahead.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._drop_ahead(list(self._ahead))

    def _drop_ahead(self, keys: Iterable[str]) -> list[str]:
        dropped = [held for key in keys for held in self._ahead.get(key, ())]
        for held in dropped:
            self._remove(held)
        return [held.receipt for held in dropped]

    def _remove(self, held: _Held) -> None:
        del self._held[held.receipt]
        message_id = held.delivery.message.message_id
        if self._newest.get(message_id) == held.receipt:
            del self._newest[message_id]
        key = held.delivery.order_key
        if held.in_work:
            self._in_work[key] -= 1
            if not self._in_work[key]:
                del self._in_work[key]
            return
        self._ahead[key].remove(held)
        if not self._ahead[key]:
            del self._ahead[key]
        self._count_ahead -= 1
        self._changed.notify_all()
