"""Runs a pipeline: picks the runner, refuses what Beam would silently ignore, brings back counters and clear errors."""

import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner, create_runner

from ..io.errors import BackendUnavailableError, FanIdentityError, UsageError
from ..transforms.batches import NAMESPACE
from ..transforms.sources import IN_PROCESS, Pace, draining

_LOCAL_RUNNERS: Final = ("DirectRunner", "PrismRunner")
_OUR_ERRORS: Final = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (UsageError, BackendUnavailableError)}
# A traceback's last line, with the step Beam adds to it.
_ERROR_LINE: Final = re.compile(
    rf"^({'|'.join(re.escape(name) for name in _OUR_ERRORS)}): (.*?)(?: \[while running '[^\n]*'\])?$", re.MULTILINE
)


def parse_beam_flags(flags: Sequence[str], *, prism: str | None) -> PipelineOptions:
    """Reads Beam's own flags (what follows ``--`` on the command line).

    Args:
        flags: such as ``--runner=PrismRunner``.
        prism: the Prism binary from our settings, or None to search PATH.

    Raises:
        UsageError: a flag no runner on this machine knows (Beam itself would ignore it), or a value that does not fit.
    """
    options = PipelineOptions(list(flags))
    parsers: list[Any] = []
    try:
        options.get_all_options(add_extra_args_fn=parsers.append)
        _, unknown = parsers[0].parse_known_args(list(flags))
    except SystemExit:
        # argparse has already written what is wrong with which flag to standard error.
        raise UsageError("the Beam options after -- do not fit") from None
    runner = _runner_name(options)
    if unknown and runner in _LOCAL_RUNNERS:
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
    return IN_PROCESS if _runner_name(options) == "DirectRunner" else Pace()


def execute(build: Callable[[beam.Pipeline], Any], options: PipelineOptions) -> dict[str, int]:
    """Builds and runs a pipeline to its end.

    Args:
        build: adds the steps.
        options: from ``parse_beam_flags``.

    Returns:
        Our counters, by name.

    Raises:
        UsageError, BackendUnavailableError: what a worker raised, on whichever process it ran.
        RuntimeError: any other failure, with Beam's text.
    """
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline)
    try:
        result: Any = pipeline.run()  # Beam's results have no types
        result.wait_until_finish()
    except FanIdentityError:
        raise
    except Exception as error:
        ours = _our_error(str(error))
        if ours is None:
            raise
        raise ours from error
    counts: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        metric = counter.key.metric
        if metric.namespace == NAMESPACE:
            counts[metric.name] = counts.get(metric.name, 0) + int(counter.result or 0)
    return counts


def _runner_name(options: PipelineOptions) -> str:
    standard: Any = options.view_as(StandardOptions)
    return str(standard.runner or "DirectRunner")


def _runner(options: PipelineOptions) -> PipelineRunner:
    name = _runner_name(options)
    if name == "DirectRunner":
        # Beam's DirectRunner first tries Prism (and to download it), and falls back without a word to a runner that
        # cannot stream. Ours is always the one it runs Python batches on.
        from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner  # noqa: PLC0415 - slow to import

        return FnApiRunner()
    if name == "PrismRunner":
        from .prism import DetachedPrismRunner  # noqa: PLC0415 - only where it is used

        return DetachedPrismRunner()
    try:
        return create_runner(name)
    except ValueError as error:
        raise UsageError(f"--runner={name}: {error}") from None


def _our_error(text: str) -> FanIdentityError | None:
    """Finds an error of ours in the text of Beam's: a runner passes a worker's exception on as its traceback."""
    found = list(_ERROR_LINE.finditer(text))
    if not found:
        return None
    return _OUR_ERRORS[found[-1].group(1)](found[-1].group(2))


@contextmanager
def drain_on_signal() -> Generator[None]:
    """While in the block, Ctrl-C or SIGTERM lets the pipelines of this process finish what they read and end.

    A second signal ends the process at once; what was in work is done again by the next run.
    """

    def drain(number: int, frame: FrameType | None) -> None:
        del frame
        draining.set()
        signal.signal(number, previous[number])
        logging.getLogger("fan_identity").info("draining")

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
