"""Prism, Beam's local streaming runner, started so that Ctrl-C does not reach it.

A terminal sends Ctrl-C to every process of its foreground group, and Beam stops Prism besides when it sees one. Prism
would be gone while we drain, and take the batches in work with it. Here it has a session of its own, ends when this
process is done with it, and (on Linux) also when this process is killed.
"""

import atexit
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.job_server import JobServer
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.portability.prism_runner import PrismJobServer, PrismRunner
from typing_extensions import override

_BEAM_THREADS = ("run_worker_", "read_grpc_client_inputs")
_LAUNCHER = """
import ctypes, os, signal, sys
os.setsid()
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""


class DetachedPrismRunner(PrismRunner):
    """The PrismRunner, its server in a session of its own, its jobs without a time limit.

    ``--job_server_timeout`` has no effect: Beam ends with it not only requests but also the stream that tells a job's
    state, and so the job, 300 s after its start.
    """

    @override
    def default_job_server(self, options: PipelineOptions) -> JobServer:
        server = _DetachedPrismJobServer(options)
        atexit.register(server.stop)
        threading.excepthook = _unless_of_beam(threading.excepthook)
        return server

    @override
    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> JobServiceHandle:
        handle: Any = JobServiceHandle(job_service, options, retain_unknown_options=True)  # as Beam does
        handle.timeout = None
        return handle


def _unless_of_beam(
    hook: Callable[[threading.ExceptHookArgs], Any],
) -> Callable[[threading.ExceptHookArgs], Any]:
    """Keeps the end of Beam's background threads in this process off standard error.

    They may find their connection closed when Prism is done with the job. What fails in a bundle comes back with the
    job's result.
    """

    def tell(failure: threading.ExceptHookArgs) -> Any:
        name = "" if failure.thread is None else failure.thread.name
        if not name.startswith(_BEAM_THREADS) and not issubclass(failure.exc_type, grpc.RpcError):
            hook(failure)

    return tell


class _DetachedPrismJobServer(PrismJobServer):
    @override
    def subprocess_cmd_and_endpoint(self) -> tuple[list[Any], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        return [sys.executable, "-c", _LAUNCHER, *command], endpoint
