"""Runs a pipeline: picks the runner, refuses what Beam would silently ignore, brings back counters and clear errors."""

import copy
import io
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from pathlib import Path
from types import FrameType
from typing import Any, Final

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from ..io.errors import BackendUnavailableError, FanIdentityError, UsageError
from ..transforms.batches import NAMESPACE
from ..transforms.draining import draining
from ..transforms.sources import IN_PROCESS, Pace
from . import local_worker

_LOCAL_RUNNERS: Final = ("DirectRunner", "PrismRunner")
_KNOWN_FLAGS: Final = (*_LOCAL_RUNNERS, "DataflowRunner")
"""Runners all of whose flags Beam's Python knows; Flink's are asked for when the job is submitted."""

_OUR_ERRORS: Final = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (UsageError, BackendUnavailableError)}
_STEP: Final = re.compile(r" \[while running '[^\n]*'\]$")  # what Beam adds to an exception's message
_ERROR_LINE: Final = re.compile(
    rf"^({'|'.join(re.escape(name) for name in _OUR_ERRORS)}): (.*)$", re.MULTILINE
)  # the last line of a traceback


def parse_beam_flags(
    flags: Sequence[str], *, prism: str | None, streaming: bool = False, job: str = ""
) -> PipelineOptions:
    """Reads Beam's own flags (what follows ``--`` on the command line).

    Args:
        flags: such as ``--runner=PrismRunner``.
        prism: the Prism binary from our settings, or None to search PATH.
        streaming: the run goes on until stopped; a cluster's runner wants to know.
        job: its name on a cluster, where the flags give none.

    Raises:
        UsageError: a flag the runner does not know (Beam itself would ignore it), or a value that does not fit.
    """
    # Worker processes would tell of their life on standard error; errors come back to us anyway.
    flags = ["--default_sdk_harness_log_level=ERROR", *flags]
    options = PipelineOptions(flags)
    if runner_name(options) not in _LOCAL_RUNNERS:
        named = any(flag.partition("=")[0] == "--job_name" for flag in flags)
        flags = [*flags, *(["--streaming"] if streaming else []), *([] if named or not job else [f"--job_name={job}"])]
        options = PipelineOptions(flags)
    parsers: list[Any] = []
    said = io.StringIO()
    try:
        with redirect_stderr(said):  # argparse writes all of its usage besides what is wrong
            options.get_all_options(add_extra_args_fn=parsers.append)
            _, unknown = parsers[0].parse_known_args(flags)
    except SystemExit:
        problem = said.getvalue().strip().rpartition("error: ")[2]
        raise UsageError(f"the Beam options after -- do not fit: {problem}") from None
    runner = runner_name(options)
    if unknown and runner in _KNOWN_FLAGS:
        raise UsageError(f"Beam has no option {unknown[0].partition('=')[0]}; the options after -- are Beam's own")
    if runner == "PrismRunner" and not any(flag.startswith("--prism_location") for flag in flags):
        return PipelineOptions([*flags, f"--prism_location={find_prism(prism)}", "--prism_log_level=error"])
    return options


def find_prism(setting: str | None) -> str:
    """The Prism binary: the setting, else on PATH, else where ``go install`` puts it.

    Raises:
        UsageError: it is nowhere; says how to get it. Beam would try to download it.
    """
    go_bin = os.environ.get("GOBIN") or str(Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin")
    beside_python = str(Path(sys.executable).parent)  # where make prism puts it
    found = setting or shutil.which("prism", path=os.pathsep.join((beside_python, os.environ.get("PATH", ""), go_bin)))
    if found is None or not Path(found).is_file():
        raise UsageError(
            "the Prism runner was not found; get it with: "
            f"go install github.com/apache/beam/sdks/v2/go/cmd/prism@v{beam.__version__} "
            "and put it on PATH or name it in FAN_IDENTITY_PRISM"
        )
    return found


def pace_of(options: PipelineOptions) -> Pace:
    """How streaming sources share their time with the runner that options choose."""
    return IN_PROCESS if runner_name(options) == "DirectRunner" else Pace()


def runs_here(options: PipelineOptions) -> bool:
    """Whether a pipeline runs in this process or in others that end with it; on a cluster, it outlives us."""
    if runner_name(options) in _LOCAL_RUNNERS:
        return True
    from .clusters import runs_embedded  # noqa: PLC0415 - only where it is used

    return runs_embedded(runner_name(options), options)


def execute(build: Callable[[beam.Pipeline], Any], options: PipelineOptions) -> dict[str, int]:
    """Builds and runs a pipeline to its end.

    Args:
        build: adds the steps.
        options: from ``parse_beam_flags``.

    Returns:
        Our counters, by name; none where nothing was run (a template for Dataflow was written).

    Raises:
        UsageError, BackendUnavailableError: what a worker raised, on whichever process it ran, or why a cluster ended
            the job.
        JobGoesOnError: Ctrl-C, while a cluster ran the job.
        RuntimeError: any other failure, with Beam's text.
    """
    # Imported where it is used: it brings Beam's clients of job servers.
    from .clusters import failure, going_on  # noqa: PLC0415

    options = copy.deepcopy(options)  # making the runner changes them, and the caller runs two pipelines with them
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline)
    runner, here = runner_name(options), runs_here(options)
    result: Any = None  # Beam's results have no types
    try:
        with _without_tracebacks():
            result = pipeline.run()
            result.wait_until_finish()
    except KeyboardInterrupt:
        if here:
            raise
        raise going_on(runner, options, result) from None
    except Exception as error:
        if here and _interrupted(error):
            raise KeyboardInterrupt from None
        text = str(error)
        ours = type(error)(_STEP.sub("", text)) if isinstance(error, FanIdentityError) else _our_error(text)
        if ours is None:
            if here:
                raise
            ours = failure(text)
        raise ours from error
    if not getattr(result, "has_job", True):
        return {}
    counts: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        metric = counter.key.metric
        if metric.namespace == NAMESPACE:
            counts[metric.name] = counts.get(metric.name, 0) + int(counter.result or 0)
    logging.getLogger("fan_identity.runner").info("pipeline ended", extra={"counts": counts})
    return counts


def _drain() -> None:
    draining.set()
    logging.getLogger("fan_identity").info("draining")


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C hit a step: Beam wraps whatever a step raises."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@contextmanager
def _without_tracebacks() -> Generator[None]:
    """Keeps Beam from printing a failed bundle's traceback to standard error: the error comes back to ``execute``.

    Our log and our console hold the standard error they were made with.
    """
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        yield


def runner_name(options: PipelineOptions) -> str:
    """The runner that options choose, such as ``DirectRunner``."""
    standard: Any = options.view_as(StandardOptions)
    return str(standard.runner or "DirectRunner")


def _runner(options: PipelineOptions) -> PipelineRunner:
    name = runner_name(options)
    if name == "DirectRunner":
        return _direct_runner(options)
    if name == "PrismRunner":
        from .prism import DetachedPrismRunner  # noqa: PLC0415 - only where it is used

        return DetachedPrismRunner()
    if name in ("PortableRunner", "FlinkRunner"):
        from .clusters import StrictFlinkRunner, StrictPortableRunner  # noqa: PLC0415 - only where it is used

        return StrictPortableRunner() if name == "PortableRunner" else StrictFlinkRunner()
    try:
        return create_runner(name)
    except ValueError as error:
        raise UsageError(f"--runner={name}: {error}") from None


def _direct_runner(options: PipelineOptions) -> PipelineRunner:
    """The runner Beam's DirectRunner runs Python batches on.

    Beam's own choice first tries Prism (and to download it), and falls back without a word to a runner that cannot
    stream.
    """
    from apache_beam.portability.api import beam_provision_api_pb2  # noqa: PLC0415 - slow to import
    from apache_beam.runners.portability.fn_api_runner.fn_runner import (  # noqa: PLC0415
        ExtendedProvisionInfo,
        FnApiRunner,
    )
    from apache_beam.runners.portability.portable_runner import JobServiceHandle  # noqa: PLC0415

    # Beam's protocol buffers have no types.
    provision: Any = beam_provision_api_pb2
    encoded: Any = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = ExtendedProvisionInfo(provision.ProvisionInfo(pipeline_options=encoded))
    direct: Any = options.view_as(DirectOptions)
    if direct.direct_running_mode != "multi_processing":
        return FnApiRunner(provision_info=info)
    direct.direct_running_mode = "in_memory"  # or the runner would start Beam's worker processes, not ours
    environment: Any = SubprocessSDKEnvironment
    # "exec": Beam starts it with a shell, which would stand between this process's end and its workers'.
    worker = environment.from_command_string(f"exec {shlex.quote(sys.executable)} -m {local_worker.__name__}")
    return FnApiRunner(default_environment=worker, provision_info=info)


def _our_error(text: str) -> FanIdentityError | None:
    """Finds an error of ours in the text of Beam's: a runner passes a worker's exception on as its traceback."""
    found = list(_ERROR_LINE.finditer(text))
    if not found:
        return None
    return _OUR_ERRORS[found[-1].group(1)](_STEP.sub("", found[-1].group(2)))


def end_on_signal(options: PipelineOptions) -> AbstractContextManager[None]:
    """While in the block, Ctrl-C and SIGTERM drain what runs here, and leave to a cluster what runs there."""
    if runs_here(options):
        return drain_on_signal()
    from .clusters import leave_on_signal  # noqa: PLC0415 - only where it is used

    return leave_on_signal()


@contextmanager
def stop_on_sigterm() -> Generator[None]:
    """While in the block, SIGTERM ends it as Ctrl-C does: locks are given back, and folders of fans' ids removed."""
    previous: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def drain_on_signal() -> Generator[None]:
    """While in the block, Ctrl-C or SIGTERM lets the pipelines of this process finish what they read and end.

    A second signal ends the process at once; what was in work is done again by the next run.
    """

    def drain(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_DFL)
        # In a thread: what the signal interrupted may be waiting for the event, or logging, and hold their locks.
        threading.Thread(target=_drain, name="drain").start()

    signals = (signal.SIGINT, signal.SIGTERM)
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in signals}
    draining.clear()
    for number in signals:
        signal.signal(number, drain)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, previous[number])
        draining.clear()
