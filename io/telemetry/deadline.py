"""A deadline for what has none of its own: sending the last of telemetry while a process ends."""

import logging
import threading
from collections.abc import Callable
from typing import Final

_log: Final = logging.getLogger("fan_identity.telemetry")


def within(seconds: float, do: Callable[[], object]) -> None:
    """Does something in a thread that nobody waits for longer: a collector that hangs keeps no process from its end."""

    def done() -> None:
        try:
            do()
        except Exception as error:  # telemetry is never a reason to fail
            _log.info("telemetry could not be sent: %s", type(error).__name__)

    thread = threading.Thread(target=done, name="telemetry end", daemon=True)
    thread.start()
    thread.join(seconds)
