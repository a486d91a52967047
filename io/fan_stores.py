"""Where a fan can be besides tables: the ARM cache, dead letters, queues and the activity log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..domain.activity import ACTIVITY_TYPES, format_time_ms
from ..domain.fan_traces import Fan, speaks_of, without
from ..domain.records import DeadLetter, dead_letter_id
from .fan_tables import text_of
from .ports import ArmCache, DeadLetterArchive, MessageQueue, StoredDeadLetter
from .sqlite.activity_log import SqliteActivityLog
from .sqlite.queue import SqliteQueue


@dataclass(frozen=True)
class CacheEntry:
    """The fan's entry in the ARM cache."""

    name: str
    cache: ArmCache
    key: str

    def find(self) -> list[Mapping[str, Any]]:
        """The entry, if there is one."""
        value = self.cache.get(self.key)
        return [] if value is None else [{"key": self.key, "value": value}]

    def erase(self) -> int:
        """Deletes it, and whatever else stands under its key; 1 if there was an entry."""
        found = len(self.find())
        self.cache.delete([self.key])
        return found


@dataclass(frozen=True)
class Letters:
    """Dead letters whose payload speaks of the fan. All of them are read: their payloads are no keys."""

    name: str
    archive: DeadLetterArchive
    fan: Fan

    def find(self) -> list[Mapping[str, Any]]:
        """The letters."""
        return [
            {
                **{name: value for name, value in msgspec.to_builtins(stored.letter).items() if name != "payload"},
                "payload": text_of(stored.letter.payload),
                "writtenAt": format_time_ms(stored.written_at_ms),
                "redrivenAt": None if stored.redriven_at_ms is None else format_time_ms(stored.redriven_at_ms),
            }
            for stored in self._letters()
        ]

    def erase(self) -> int:
        """Deletes them; of a request that names other fans too, a letter without this fan stays. How many."""
        erased = 0
        for stored in self._letters():
            rest = without(stored.letter.payload, self.fan)
            if rest is not None and stored.redriven_at_ms is None:
                self.archive.write([_renamed(stored.letter, rest)])
            self.archive.delete([stored.letter.dead_letter_id])
            erased += 1
        return erased

    def _letters(self) -> Iterator[StoredDeadLetter]:
        for stored in self.archive.each():
            letter = stored.letter
            if speaks_of(letter.payload, self.fan) or not self.fan.names.isdisjoint((letter.position, letter.source)):
                yield stored


def _renamed(letter: DeadLetter, payload: bytes) -> DeadLetter:
    name = dead_letter_id(letter.worker, letter.source, letter.position, payload)
    return msgspec.structs.replace(letter, dead_letter_id=name, payload=payload)


@dataclass(frozen=True)
class Messages:
    """Messages of the fan in a queue of an SQLite store."""

    name: str
    queue: SqliteQueue
    fan: Fan

    def find(self) -> list[Mapping[str, Any]]:
        """The messages' bodies, waiting and in flight, a group's in their order."""
        return [{"body": text_of(body)} for _, _, body in self._messages()]

    def erase(self) -> int:
        """Deletes them; of a request that names other fans too, what is left of it stays. How many.

        A worker that has received one scores it still: erasing again afterwards finds the score.
        """
        found = [(group, seq, without(body, self.fan)) for group, seq, body in self._messages()]
        self.queue.rewrite(found)
        self.queue.forget_sent(self.fan.group_id)
        return len(found)

    def _messages(self) -> Iterator[tuple[str, int, bytes]]:
        for group, seq, body in self.queue.each():
            if group == self.fan.group_id or speaks_of(body, self.fan):
                yield group, seq, body


@dataclass(frozen=True)
class QueueOfServer:
    """A queue of SQS or Pub/Sub: its messages cannot be searched, only received. Nothing is found or erased here."""

    name: str
    queue: MessageQueue

    def find(self) -> list[Mapping[str, Any]]:
        """Nothing."""
        return []

    def erase(self) -> int:
        """Nothing."""
        return 0

    def depth(self) -> int:
        """How many messages wait or are in flight; one of them may be the fan's."""
        return self.queue.depth()


@dataclass(frozen=True)
class Activities:
    """The fan's activities in the log of a store; addresses, devices and events stand in it as hashes."""

    name: str
    log: SqliteActivityLog
    fan: Fan

    def find(self) -> list[Mapping[str, Any]]:
        """The activities in their order."""
        return [
            {
                "activityId": fact.activity_id,
                "activityType": ACTIVITY_TYPES[fact.type_index],
                "occurredAt": format_time_ms(fact.time_ms),
                "addressHash": fact.address,
                "deviceHash": fact.device,
                "eventHash": fact.event,
                "failed": bool(fact.failed),
            }
            for fact in self.log.activities(self.fan.global_user_id)
        ]

    def erase(self) -> int:
        """Deletes them; how many."""
        number = len(self.log.activities(self.fan.global_user_id))
        self.log.delete(self.fan.global_user_id)
        return number
