"""Starts Beam's Python workers on demand for a Flink on this machine: Beam's own worker pool, but for two things.

It listens on loopback only: ``worker_pool_main`` listens on all interfaces, and who reaches it can have any code run.
It never kills a worker: Beam's runner calls the first worker of every job ``1-1``, so the pool, told to stop one of
one job, would kill that of another. A worker ends by itself when its runner hangs up. Takes the port.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils import thread_pool_executor


class _Pool(BeamFnExternalWorkerPoolServicer):
    def StopWorker(self, stop_worker_request: Any, unused_context: Any) -> Any:
        return beam_fn_api_pb2.StopWorkerResponse()


def main(port: int) -> None:
    """Serves until the process is ended; a worker is a child process of its own."""
    # Beam starts workers as "python": the one of this environment.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    server = grpc.server(thread_pool_executor.shared_unbounded_instance())
    server.add_insecure_port(f"127.0.0.1:{port}")
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(_Pool(use_process=True), server)
    server.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
