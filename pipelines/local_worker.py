"""A worker process of the local runner: Beam's own, with our log instead of its chatter on standard error."""

import ctypes
import os
import signal
import sys
import uuid
from pathlib import Path

from ..io.logs import configure_logging, switch_debug_on_signal
from ..io.settings import load_settings

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves the runner that started this process, until it is done."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # ends with the process that started it
    configure_logging(load_settings().log_level, "worker", uuid.uuid4().hex)
    switch_debug_on_signal()
    # Beam prints the traceback of a failed bundle besides returning it to the runner, where it is told once. The log
    # keeps the standard error it was set up with.
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - open as long as the process lives
    # Ctrl-C in a terminal reaches this process too: it drains, as the one that started it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Imported after the log is set up: Beam logs while it is imported.
    from apache_beam.runners.worker import sdk_worker_main  # noqa: PLC0415

    from ..transforms.draining import draining  # noqa: PLC0415

    signal.signal(signal.SIGINT, lambda number, frame: draining.set())
    sdk_worker_main.main([])  # pyright: ignore[reportUnknownMemberType]


if __name__ == "__main__":
    main()
