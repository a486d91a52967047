"""A worker's kill switch: switched off by its flag it takes up nothing new, and goes on where it stopped."""

import logging
import threading
from typing import Final

from .flags import Flags
from .steps import Count

POLL_SECONDS: Final = 0.05

_log = logging.getLogger(__name__)
_paused: Final[set[str]] = set()
_lock: Final = threading.Lock()


class KillSwitch:
    """Asked by whatever takes up work, before it does. Each pause of a worker is counted once a process: ``skipped``.

    Args:
        worker: whose.
        flags: tell whether it is on.
        count: adds to the worker's counters.
        draining: set when the process is asked to end; then nobody waits.
    """

    def __init__(self, worker: str, flags: Flags, count: Count, draining: threading.Event) -> None:
        self._worker = worker
        self._flags = flags
        self._count = count
        self._draining = draining

    def is_on(self) -> bool:
        """Whether work may be taken up now; never waits."""
        on = self._flags.is_enabled(self._worker)
        if on is (self._worker in _paused):
            self._changed(on=on)
        return on

    def wait(self) -> bool:
        """Waits while the worker is switched off.

        Returns:
            Whether to go on; False where the process drained while it was switched off.
        """
        while not self.is_on():
            if self._draining.wait(POLL_SECONDS):
                return False
        return True

    def _changed(self, *, on: bool) -> None:
        with _lock:
            if on is not (self._worker in _paused):
                return  # another thread was first
            (_paused.discard if on else _paused.add)(self._worker)
        if not on:
            self._count("skipped", 1)
        _log.info("switched on by its flag" if on else "switched off by its flag", extra={"worker": self._worker})
