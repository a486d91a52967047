"""The program's log: one JSON object a line on standard error, correlated, without personal data.

Lines about a record carry ``requestId``, ``worker`` and ``activityId``; lines about a run carry the run's.
User ids, addresses and payloads are never logged; activity ids pass through ``loggable_id``.
"""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _OursOnly(logging.Filter):
    """Lets lines of this program pass; those of Beam and others at debug level only.

    Runners log a failed bundle, traceback and all, and set their loggers' levels themselves. What failed comes back to
    us and is told once.
    """

    def __init__(self, level: str) -> None:
        super().__init__()
        self._others = level.upper() == "DEBUG"

    def filter(self, record: logging.LogRecord) -> bool:
        return self._others or record.name.partition(".")[0] == "fan_identity"


class _Correlate(logging.Filter):
    """Gives every line the correlation fields, those of the run where the line has none of its own."""

    def __init__(self, worker: str, request_id: str) -> None:
        super().__init__()
        self._defaults = {"requestId": request_id, "worker": worker, "activityId": None}

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in self._defaults.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def configure_logging(level: str, worker: str, request_id: str) -> None:
    """Sends this program's log to standard error as JSON lines; at debug level also the warnings of Beam and others.

    Args:
        level: of our own loggers: debug, info, warning or error.
        worker: named in lines that no record caused.
        request_id: of the run, in the same lines.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            _FIELDS, rename_fields={"asctime": "time", "levelname": "level", "name": "logger"}, json_ensure_ascii=True
        )
    )
    handler.addFilter(_OursOnly(level))
    handler.addFilter(_Correlate(worker, request_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fan_identity").setLevel(level.upper())
