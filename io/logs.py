"""The program's log: one JSON object a line on standard error, correlated, without personal data.

Lines about a record carry ``requestId``, ``worker`` and ``activityId``; lines about a run carry the run's.
User ids, addresses and payloads are never logged; activity ids pass through ``loggable_id``.
"""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"


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
    """Sends this program's log, and warnings of Beam's, to standard error as JSON lines.

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
    handler.addFilter(_Correlate(worker, request_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.ERROR)
    logging.getLogger("fan_identity").setLevel(level.upper())
    # Beam logs a failed bundle with the whole traceback before raising it; what failed is told once, by us.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
