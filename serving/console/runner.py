"""Runs one command for the console, in a process of its own that outlives the server: ``python -m …console.runner``.

What to run comes on standard input, as JSON. The command's settings are the environment's. How it ended is written to
the job's item and to the audit log, whether the server that started it is still there or not.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, Final, NamedTuple

import msgspec

from ...domain.audit import Entry, Outcome
from ...io.audit import AuditLog
from ...io.backends import open_operations
from ...io.clock import now_ms
from ...io.errors import BackendUnavailableError
from ...io.logs import configure_logging
from ...io.process_marks import process_mark
from .jobs import LONGEST_SECONDS, Job, Jobs, JobState

_KILL_SECONDS: Final = 30
_KEPT_BYTES: Final = 65_536
_PROBLEM_CHARACTERS: Final = 500
_DONE: Final = (0, 1)
"""Exit codes of a command that did its work; 1 where something of it failed, which its figures tell."""

_MEANINGS: Final = {
    2: "it was refused: what was asked for does not fit what is there now, or a setting is wrong",
    3: "a part is out of reach, or another run of the command is at work",
    130: "it was stopped",
    None: "it was killed",
}
"""Of exit codes. What the command said names addresses and paths: that is for the log."""

_SHOWN: Final = frozenset({"active", "rolledBack", "outcome"})
"""Texts of a command's summary that the job keeps, besides numbers: versions, and words of a closed list."""

_TRIES: Final = 60
_REST_SECONDS: Final = 5.0
_log: Final = logging.getLogger("fan_identity.console")


class Order(msgspec.Struct, frozen=True):
    """What a runner is given.

    Attributes:
        operations: the operations table's address.
        job: as it was added.
        arguments: of ``fan-identity``.
    """

    operations: str
    job: Job
    arguments: tuple[str, ...]


class Ended(NamedTuple):
    """How a command ended: its exit code (None where it was killed), what it said on its outputs' ends."""

    exit_code: int | None
    output: bytes
    errors: bytes


def main() -> None:
    """Runs what standard input says."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    configure_logging("WARNING", "console", order.job.job)
    jobs, audit = Jobs(open_operations(order.operations)), AuditLog.of(order.operations)
    job = msgspec.structs.replace(order.job, process=process_mark())
    if not jobs.claim(job):
        _log.warning("a job was declared lost before it could begin: it is not run")
        return
    finished = finished_job(job, run([sys.executable, "-m", "fan_identity.pipelines.cli", *order.arguments]))
    _patiently(lambda: jobs.end(finished))
    _patiently(lambda: audit.append(end_of(finished)))


def run(command: Sequence[str], seconds: float = LONGEST_SECONDS) -> Ended:
    """Runs a command without a shell, in a process group of its own; ends it after a time.

    Args:
        command: program and arguments.
        seconds: after which it is asked to stop (SIGTERM), and half a minute later killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603 - a command of this program, without a shell
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )

        def stop(number: int, frame: object) -> None:
            del number, frame
            child.terminate()

        signal.signal(signal.SIGTERM, stop)
        code: int | None = None
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(_KILL_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # nothing of it is left behind, whoever it started
        if code is None:
            child.wait()
        return Ended(code if code is not None and code >= 0 else None, _end(output), _end(errors))


def finished_job(job: Job, ended: Ended) -> Job:
    """The job with how its command ended: of why it failed what the exit code means, and the log has the text."""
    done = ended.exit_code in _DONE
    if not done:
        said = ended.errors.decode(errors="replace").strip().splitlines()
        told = said[-1].removeprefix("error: ")[:_PROBLEM_CHARACTERS] if said else ""
        _log.warning("a command failed", extra={"job": job.job, "exitCode": ended.exit_code, "problem": told})
    return msgspec.structs.replace(
        job,
        state=JobState.DONE if done else JobState.FAILED,
        ended_at=now_ms(),
        exit_code=ended.exit_code,
        summary=_summary(ended.output),
        problem="" if done else _MEANINGS.get(ended.exit_code, "it failed"),
    )


def end_of(job: Job) -> Entry:
    """The audit log's entry of a job's end."""
    outcome = Outcome.DONE if job.state is JobState.DONE else Outcome.FAILED
    code = {} if job.exit_code is None else {"exitCode": job.exit_code}
    if job.exit_code is None and job.state is not JobState.DONE:
        outcome = Outcome.UNKNOWN
    counts = {name: value for name, value in job.summary.items() if type(value) is int and abs(value) < 2**53}
    return Entry(
        job.reference, job.subject, job.action, job.target, outcome, {"job": job.job, **code, **counts}, job.request_id
    )


def _summary(output: bytes) -> dict[str, Any]:
    """Numbers of what the command printed last, where that is a JSON object, and texts that name nothing of ours."""
    lines = output.strip().splitlines()
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        said = msgspec.json.decode(lines[-1] if lines else b"{}", type=dict[str, Any])
        return {
            name: value
            for name, value in {**_counts(said), **said}.items()
            if isinstance(value, (int, float)) or (isinstance(value, str) and name in _SHOWN)
        }
    return {}


def _counts(said: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(said.get("counts"), dict[str, Any])
    return {}


def _end(file: IO[bytes]) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _KEPT_BYTES, 0))
    return file.read()


def _patiently(write: Callable[[], object]) -> None:
    """Writes though the table may be away for some minutes; what cannot be written then is closed by the console."""
    for left in range(_TRIES, 0, -1):
        try:
            write()
        except BackendUnavailableError as error:
            _log.warning("a job's end cannot be written: %s", error)
            if left == 1:
                raise
            time.sleep(_REST_SECONDS)
        else:
            return


if __name__ == "__main__":
    main()
