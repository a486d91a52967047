"""Starts the program's own commands: their locks, leases and counts are those of the command line.

A command runs under ``serving.console.runner``, in a session of its own: it goes on where the server ends, and tells by
itself how it ended. No shell is in between, and an argument is never more than one argument.
"""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from starlette.routing import Route

from ...domain.activity import format_time_ms
from ...domain.audit import Outcome
from ...io.clock import now_ms
from ...io.errors import BackendUnavailableError
from ...io.settings import Settings
from .guard import Asked, Guard, Nothing, conflict, not_found
from .jobs import JOB_ID, LOST, Job, JobKind, Jobs, JobState, new_job_id
from .recording import Recorder
from .runner import Order
from .threads import Threads

_RUNNER: Final = "fan_identity.serving.console.runner"
_RECENT: Final = 50


class OneJob(msgspec.Struct, forbid_unknown_fields=True):
    """A job."""

    job: Annotated[str, msgspec.Meta(pattern=JOB_ID)]


class Commands:
    """Starts commands and tells how far they are.

    Args:
        jobs: where they are remembered.
        recorder: of their beginnings in the audit log.
        threads: where the table is asked.
        operations: the operations table's address.
        environment: of the commands, besides this process's own: their settings.
    """

    def __init__(
        self, jobs: Jobs, recorder: Recorder, threads: Threads, operations: str, environment: Mapping[str, str]
    ) -> None:
        self._jobs = jobs
        self._recorder = recorder
        self._threads = threads
        self._operations = operations
        self._environment = environment
        self._starting = asyncio.Lock()

    def routes(self, guard: Guard) -> list[Route]:
        """The routes of jobs."""
        return [guard.read("/jobs", self._recent, Nothing), guard.read("/jobs/{job}", self._one, OneJob)]

    async def start(
        self,
        asked: Asked,
        kind: JobKind,
        action: str,
        target: str | None,
        details: Mapping[str, str | int],
        arguments: Sequence[str],
    ) -> str:
        """Starts a command; the audit log has its beginning before.

        Two servers that start one at the same moment both do: the command's own lock then refuses the second.

        Args:
            asked: whose request it is.
            kind: one of a kind runs at a time.
            action: as the audit log names it.
            target: what is acted on; the job itself where None.
            details: for the audit log.
            arguments: of ``fan-identity``.

        Returns:
            The job's name.

        Raises:
            FunctionError: 409, one of its kind runs.
            BackendUnavailableError: table or audit log are out of reach, or no process can be started.
        """
        async with self._starting:
            if await self._threads.ask("operations", self._jobs.running, kind):
                raise conflict(f"a {kind} is running already: wait for its end", "JOB_RUNNING")
            name = new_job_id()
            begun = await self._recorder.begin(asked, action, target or name, {"job": name, **details})
            job = Job(name, kind, begun.reference, begun.subject, action, target or name, asked.request_id, now_ms())
            try:
                await self._threads.write(self._launch, job, tuple(arguments))
            except Exception:  # a request that is given up is no failure: its command is started, and tells its own end
                await self._recorder.end(begun, Outcome.FAILED, {"job": name, "problem": "it could not be started"})
                raise
        return name

    def _launch(self, job: Job, arguments: tuple[str, ...]) -> None:
        self._jobs.add(job)
        order = msgspec.json.encode(Order(self._operations, job, arguments))
        try:
            runner = subprocess.Popen(  # noqa: S603 - this program's own module; what to run is checked
                [sys.executable, "-m", _RUNNER],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
            with runner.stdin as order_of_runner:  # pyright: ignore[reportOptionalContextManager] - it is a pipe
                order_of_runner.write(order)
            threading.Thread(target=runner.wait, name="console-job", daemon=True).start()  # or it stays as a zombie
        except OSError as error:
            problem = f"no process can be started: {error.strerror}"
            failed = msgspec.structs.replace(job, state=JobState.FAILED, ended_at=now_ms(), problem=problem)
            self._jobs.end(failed)
            raise BackendUnavailableError(problem) from None

    async def _recent(self, asked: Asked, nothing: Nothing) -> dict[str, Any]:
        del asked, nothing
        return {"jobs": [_shown(job) for job in await self._threads.ask("operations", self._jobs.recent, _RECENT)]}

    async def _one(self, asked: Asked, one: OneJob) -> dict[str, Any]:
        del asked
        job = await self._threads.ask("operations", self._jobs.get, one.job)
        if job is None:
            raise not_found("job")
        return _shown(job)


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings that commands need, as the environment has them: addresses and texts; secrets are there already."""
    given: dict[str, str] = {}
    for name in Settings.model_fields:
        value: Any = getattr(settings, name)
        if isinstance(value, str) and name != "app_name":
            given[f"FAN_IDENTITY_{name.upper()}"] = value
    return given


def _shown(job: Job) -> dict[str, Any]:
    lost = job.is_lost(now_ms())
    problem = LOST if lost else job.problem
    return {
        "job": job.job,
        "kind": job.kind,
        "subject": job.subject,
        "target": job.target,
        "state": JobState.FAILED if lost else job.state,
        "exitCode": job.exit_code,
        "summary": {**job.summary, **({"problem": problem} if problem else {})},
        "startedAt": format_time_ms(job.started_at),
        "endedAt": None if job.ended_at is None else format_time_ms(job.ended_at),
    }
