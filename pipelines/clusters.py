"""Running on a cluster: flags its job server does not know are refused, and Ctrl-C leaves the job to it."""

import difflib
import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from typing_extensions import override

from ..io.errors import BackendUnavailableError, UsageError

EMBEDDED_MASTERS: Final = ("[local]", "[auto]")
"""Of Flink: it runs inside the job server that Beam starts, and ends with it."""

_DESCRIBING: Final = 2
"""Lines of a job's failure that are shown; the cluster's log has the rest."""


class JobGoesOnError(Exception):
    """We were told to end, and the job goes on without us.

    Attributes:
        job: the runner's name for it.
        advice: how to stop it.
    """

    def __init__(self, job: str, advice: str) -> None:
        super().__init__(job)
        self.job = job
        self.advice = advice


class StrictPortableRunner(PortableRunner):
    """The PortableRunner, that refuses flags its job server does not know; Beam would ignore them."""

    @override
    def create_job_service(self, options: PipelineOptions) -> JobServiceHandle:
        try:
            return super().create_job_service(options)
        except grpc.FutureTimeoutError:
            portable: Any = options.view_as(PortableOptions)
            raise BackendUnavailableError(
                f"--job_endpoint: no job server answers at {portable.job_endpoint} "
                f"within {portable.job_server_timeout} s (--job_server_timeout)"
            ) from None

    @override
    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> JobServiceHandle:
        _refuse_unknown(job_service, options)
        return JobServiceHandle(job_service, options)


class StrictFlinkRunner(FlinkRunner):
    """The FlinkRunner, likewise."""

    @override
    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> JobServiceHandle:
        flink: Any = options.view_as(FlinkRunnerOptions)
        if not flink.flink_submit_uber_jar:  # then there is no job server that could be asked
            _refuse_unknown(job_service, options)
        return JobServiceHandle(job_service, options, retain_unknown_options=flink.flink_submit_uber_jar)


def _refuse_unknown(job_service: Any, options: Any) -> None:
    """Asks the job server for the flags it knows.

    Raises:
        UsageError: a flag is known neither to it nor to Beam's Python.
    """
    portable: Any = options.view_as(PortableOptions)
    api: Any = beam_job_api_pb2
    request = api.DescribePipelineOptionsRequest()
    described = job_service.DescribePipelineOptions(request, timeout=portable.job_server_timeout, wait_for_ready=True)
    names: set[str] = {option.name for option in described.options}
    parsers: list[Any] = []
    options.get_all_options(add_extra_args_fn=parsers.append)
    _, unknown = parsers[0].parse_known_args(options._flags)  # Beam has no public way to them
    for flag in unknown:
        name = str(flag).partition("=")[0].removeprefix("--")
        if flag.startswith("--") and name not in names:
            close: list[str] = difflib.get_close_matches(name, names, 1)
            meant = f"; did you mean --{close[0]}?" if close else ""
            raise UsageError(f"neither Beam nor its job server has an option --{name}{meant}")


def runs_embedded(runner: str, options: PipelineOptions) -> bool:
    """Whether a portable runner's job ends with this process: its Flink or its Python workers are in it."""
    portable: Any = options.view_as(PortableOptions)
    flink: Any = options.view_as(FlinkRunnerOptions)
    embedded = runner == "FlinkRunner" and flink.flink_master in EMBEDDED_MASTERS
    return embedded or portable.environment_type == "LOOPBACK"


def going_on(runner: str, options: PipelineOptions, result: Any) -> JobGoesOnError:
    """What to tell of a job that goes on.

    Args:
        runner: its runner.
        options: it was submitted with.
        result: Beam's, of the submission; None where that was interrupted, and there may be no job.
    """
    cloud: Any = options.view_as(GoogleCloudOptions)
    if runner == "DataflowRunner" and result is not None:
        name = str(result.job_id())
        where = f"--project={cloud.project} --region={cloud.region}"
        return JobGoesOnError(
            name, f"let it finish what it read and end with: gcloud dataflow jobs drain {name} {where}"
        )
    return JobGoesOnError(
        str(cloud.job_name),
        "stop it there: `flink list` tells its id, `flink stop --savepointPath FOLDER ID` ends it and keeps its place, "
        "`flink cancel ID` just ends it",
    )


def failure(text: str) -> BackendUnavailableError:
    """What to tell of a job that failed on a cluster: the first lines of what the cluster says."""
    said = " ".join(line.strip() for line in text.splitlines()[:_DESCRIBING] if line.strip())
    return BackendUnavailableError(f"the job did not end well: {said or 'the cluster does not say why'}")


@contextmanager
def leave_on_signal() -> Generator[None]:
    """While in the block, SIGTERM interrupts the wait for a job as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        del number, frame
        raise KeyboardInterrupt

    previous: Any = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
