"""Telemetry beside the work: what goes wrong with it is told to the log now and then, and never becomes the work's."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from ..errors import text_of
from ..log_limits import Seldom
from .tracing import NOTHING, Span

_WARN_SECONDS: Final = 60.0
_log: Final = logging.getLogger("fan_identity.telemetry")


class Unfailing:
    """As a context manager, ends the block where an error comes up, and lets what is behind it go on.

    Args:
        due: whether it is time to tell the log.
    """

    def __init__(self, due: Callable[[], bool]) -> None:
        self._due = due

    def __enter__(self) -> None:
        """Nothing is to be done before."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        if self._due():
            _log.warning("telemetry fails, the work goes on: %s", text_of(error))
        return True


unfailing: Final = Unfailing(Seldom(_WARN_SECONDS).due)
"""This process's: one line a minute, whatever fails."""


@contextmanager
def inside(open_span: Callable[[], Span]) -> Generator[None]:
    """A span around a block. An error of the block's ends it as failed and is raised; one of the span's is not."""
    span = NOTHING
    with unfailing:
        span = open_span()
        span.__enter__()
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        with unfailing:
            span.__exit__(None if failed is None else type(failed), failed, None)
