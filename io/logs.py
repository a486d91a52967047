"""The program's log: one JSON object a line on standard error, correlated, bounded, without personal data.

Lines about a record carry ``requestId``, ``worker`` and ``activityId``; lines about a run carry the run's. User ids,
addresses and payloads are never logged; activity ids pass through ``loggable_id``. The schema is in ``docs/logs.md``.
"""

import logging
import signal
import sys
import threading
import time
from enum import StrEnum
from types import FrameType
from typing import Any, Final, NamedTuple

from pythonjsonlogger.json import JsonFormatter
from typing_extensions import override

from .log_limits import PerSecond

LINES_A_SECOND: Final = 20
"""Of the same message, worker and reason; what is beyond is counted in the next such line's ``leftOut``."""

_FIELDS: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
_NAMES: Final = {"asctime": "time", "levelname": "level", "name": "logger"}
_MOST_CHARACTERS: Final = 8_000
_OURS: Final = "fan_identity"

_log = logging.getLogger(__name__)


class Reason(StrEnum):
    """What switched debug level on, besides the setting."""

    FLAG = "flag"
    SIGNAL = "signal"


class _Level:
    """The level of our loggers: that of the settings, or debug as long as there is a reason."""

    def __init__(self) -> None:
        self.lock: Final = threading.RLock()
        self.of_settings: int | None = None  # None where another program's log is used, as on a cluster
        self.reasons: Final[set[Reason]] = set()

    def apply(self) -> None:
        ours = logging.getLogger(_OURS)
        if self.of_settings is None:
            self.of_settings = ours.level
        ours.setLevel(logging.DEBUG if self.reasons else self.of_settings)

    @property
    def debug(self) -> bool:
        return bool(self.reasons) or self.of_settings == logging.DEBUG


class _Kind(NamedTuple):
    """What makes lines the same, but for what they are about."""

    logger: str
    level: int
    message: str
    worker: str
    reason: str

    @classmethod
    def of(cls, record: logging.LogRecord) -> "_Kind":
        worker, reason = getattr(record, "worker", ""), getattr(record, "reason", "")
        return cls(record.name, record.levelno, str(record.msg), worker, reason)


_level: Final = _Level()
_flood: Final = PerSecond[_Kind](LINES_A_SECOND)


def set_debug(reason: Reason, *, on: bool) -> None:
    """Switches debug level on or off for a reason; it is on as long as there is one. A change is logged."""
    with _level.lock:
        if on is (reason in _level.reasons):
            return
        if on:
            _level.reasons.add(reason)
            _level.apply()
        # While debug level is on, so that it is told whatever the level of the settings is.
        _log.info("debug level is switched %s by the %s", "on" if on else "off", reason)
        if not on:
            _level.reasons.discard(reason)
            _level.apply()


def switch_debug_on_signal() -> None:
    """From now on SIGUSR2 switches this process's debug level on, and off again; does nothing on Windows.

    For the main thread, as signals are.
    """
    if not hasattr(signal, "SIGUSR2"):
        return

    def switch(number: int, frame: FrameType | None) -> None:
        del number, frame
        # In a thread: what the signal interrupted may hold the log's lock, in the midst of a line.
        threading.Thread(
            target=lambda: set_debug(Reason.SIGNAL, on=Reason.SIGNAL not in _level.reasons), name="debug level"
        ).start()

    signal.signal(signal.SIGUSR2, switch)


class _OursOnly(logging.Filter):
    """Lets lines of this program pass; those of Beam and others at debug level only.

    Runners log a failed bundle, traceback and all, and set their loggers' levels themselves. What failed comes back to
    us and is told once.
    """

    def __init__(self) -> None:
        super().__init__()
        # Held here: when Python ends, modules lose their names, and libraries still log.
        self._level = _level
        self._is_ours = _is_ours

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        return self._level.debug or self._is_ours(record)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == "fan_identity"


def _without_data(record: logging.LogRecord) -> logging.LogRecord:
    """A line of somebody else's without what was put into its text: only the fixed part, and the place in the code."""
    fields = {
        **record.__dict__,
        "msg": record.msg if record.args and isinstance(record.msg, str) else "(text left out)",
        **dict.fromkeys(("args", "message", "exc_info", "exc_text", "stack_info")),
        "where": f"{record.filename}:{record.lineno}",
    }
    if record.exc_info and record.exc_info[0] is not None:
        fields["error"] = record.exc_info[0].__name__
    return logging.makeLogRecord(fields)


class _Correlate(logging.Filter):
    """Gives every line the correlation fields, those of the run where the line has none of its own."""

    def __init__(self, worker: str, request_id: str) -> None:
        super().__init__()
        self._defaults = {"requestId": request_id, "worker": worker, "activityId": None}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in self._defaults.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        trace = sys.modules.get("opentelemetry.trace")  # who has not imported it has no span
        if trace is not None:
            span = trace.get_current_span().get_span_context()
            if span.is_valid:
                record.trace_id, record.span_id = f"{span.trace_id:032x}", f"{span.span_id:016x}"
        return True


class _Json(JsonFormatter):
    """Times in UTC to the millisecond; texts cut at 8,000 characters."""

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    @override
    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {
            name: f"{value[:_MOST_CHARACTERS]}…" if isinstance(value, str) and len(value) > _MOST_CHARACTERS else value
            for name, value in log_data.items()
        }


class _Lines(logging.StreamHandler[Any]):
    """Writes lines, so many of a kind a second at most."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        left_out = _flood.admit(_Kind.of(record))
        if left_out is None:
            return
        told = record if _is_ours(record) else _without_data(record)
        if left_out:
            told.leftOut = left_out
        super().emit(told)

    @override
    def close(self) -> None:
        """Tells what was left out last, before the process ends."""
        for kind, number in _flood.take_left_out().items():
            level = next(name for name, value in logging.getLevelNamesMapping().items() if value == kind.level)
            fields: dict[str, Any] = {"name": kind.logger, "levelno": kind.level, "levelname": level}
            fields |= {"msg": kind.message, "worker": kind.worker, "leftOut": number}
            record = logging.makeLogRecord(fields | ({"reason": kind.reason} if kind.reason else {}))
            if self.filter(record):
                super().emit(record)
        super().close()


def configure_logging(level: str, worker: str, request_id: str) -> None:
    """Sends this program's log to standard error as JSON lines; at debug level also the warnings of Beam and others.

    Args:
        level: of our own loggers: debug, info, warning or error.
        worker: named in lines that no record caused.
        request_id: of the run, in the same lines.
    """
    handler = _Lines(sys.stderr)
    handler.setFormatter(_Json(_FIELDS, rename_fields=_NAMES, json_ensure_ascii=True))
    handler.addFilter(_OursOnly())
    handler.addFilter(_Correlate(worker, request_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    with _level.lock:
        _level.of_settings = logging.getLevelNamesMapping()[level.upper()]
        _level.apply()
