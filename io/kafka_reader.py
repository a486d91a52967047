"""Readers of Kafka topics. Each borrows a session (a consumer with its places) that outlives it.

Runners rebuild a reader for every bundle. A consumer costs connections and a filled prefetch queue, so a session goes
back to the process when its reader is closed or forgotten, and the next reader that starts where the last one stopped
goes on with it: no request is sent, and what was fetched is not fetched again.
"""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from .kafka_address import KafkaSettings
from .kafka_session import KafkaSession
from .ports import Share, StreamRecords

_IDLE_SECONDS: Final = 120.0

SessionKey = tuple[KafkaSettings, Share, bool]
"""Whose sessions can take each other's place: address, share, and whether bounded."""


class KafkaReader:
    """A ``StreamReader`` of a share of a topic."""

    def __init__(self, key: SessionKey, positions: Mapping[str, str], committed: Callable[[str], str]) -> None:
        session = _acquire(key)
        self._session = session
        self._last: tuple[dict[str, str], bool] | None = None
        # Not every runner closes its readers: one that is forgotten gives its session back, too.
        self._give_back = weakref.finalize(self, _released.append, (key, session))
        self._give_back.atexit = False
        try:
            session.start(positions, committed)
        except BaseException:
            session.broken = True
            self._give_back()
            raise

    def poll(self, limit: int) -> StreamRecords | None:
        """As ``StreamReader.poll``.

        Raises:
            UsageError: the topic is gone, or credentials are no longer accepted.
            BackendUnavailableError: no broker was reachable for ``unreachable_seconds``.
        """
        if limit < 1 or self._last is not None:
            raise ValueError("a closed reader is polled" if self._last is not None else "a poll for no records")
        try:
            return self._session.poll(limit)
        except BaseException:
            self._session.broken = True
            raise

    def positions(self) -> dict[str, str]:
        """By partition the position after what ``poll`` returned, or where it starts."""
        return self._session.positions() if self._last is None else dict(self._last[0])

    def ended(self) -> bool:
        """Whether a bounded read is at its end."""
        return self._session.ended() if self._last is None else self._last[1]

    def close(self) -> None:
        """Gives the consumer back for the next reader; nothing is committed."""
        if self._last is None:
            self._last = (self._session.positions(), self._session.ended())
            self._give_back()


_pool_lock = threading.Lock()
_idle: dict[SessionKey, tuple[KafkaSession, float]] = {}
# Appended to by finalizers, which may run anywhere, even where the lock is held: they take no lock.
_released: deque[tuple[SessionKey, KafkaSession]] = deque()


def _acquire(key: SessionKey) -> KafkaSession:
    """A session nobody uses: the one that waits for this key, else a new one."""
    superfluous: list[KafkaSession] = []
    with _pool_lock:
        now = time.monotonic()
        while _released:
            released, session = _released.popleft()
            if session.broken:
                superfluous.append(session)
                continue
            if released in _idle:
                superfluous.append(_idle[released][0])
            _idle[released] = (session, now)
        own = _idle.pop(key, None)
        for other in [other for other, (_, since) in _idle.items() if now - since > _IDLE_SECONDS]:
            superfluous.append(_idle.pop(other)[0])
    for session in superfluous:
        session.close()
    settings, share, bounded = key
    return own[0] if own is not None else KafkaSession(settings, share, bounded=bounded)
