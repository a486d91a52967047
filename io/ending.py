"""The end of a process: whoever has something left to say says it side by side with the others, within one deadline."""

import atexit
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from .time_limits import side_by_side

SECONDS: Final = 2.5
"""What all of it together may take; who hangs is left behind."""

_closings: Final[list[Callable[[], object]]] = []
_log: Final = logging.getLogger(__name__)


def at_end(close: Callable[[], object]) -> None:
    """Has something closed when the process ends, once however often it is asked for; so has a forked process.

    Args:
        close: does nothing where there is nothing to close, or not any more.
    """
    if close not in _closings:
        _closings.append(close)


def end(seconds: float = SECONDS) -> None:
    """Closes now what is to be closed at the end, and waits no longer than ``seconds`` for all of it."""
    side_by_side(seconds, [partial(_close, close) for close in _closings], "end of the process")


def _close(close: Callable[[], object]) -> None:
    try:
        close()
    except Exception as error:  # the process ends either way; the text of others' errors may hold anything
        _log.info("an end was not clean: %s", type(error).__name__)


atexit.register(end)
