"""Threads for calls that wait on the network: one pool a process and service."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")
Parameters = ParamSpec("Parameters")


class WorkerPool:
    """A thread pool whose threads start when first needed; made at import, used anywhere.

    Args:
        size: the number of threads.
        name: begins the threads' names.
    """

    def __init__(self, size: int, name: str) -> None:
        self.size = size
        self._name = name
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def submit(
        self, work: Callable[Parameters, Answer], *args: Parameters.args, **named: Parameters.kwargs
    ) -> Future[Answer]:
        """Starts a call in one of the threads."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.size, thread_name_prefix=self._name)
            threads = self._threads
        return threads.submit(work, *args, **named)

    def side_by_side(self, work: Callable[[Argument], Answer], arguments: Sequence[Argument]) -> list[Answer]:
        """Calls ``work`` for each argument in the threads; for a single one in the caller's.

        Returns:
            The answers in the arguments' order.

        Raises:
            Exception: the first of what the calls raised, once all of them have ended.
        """
        if len(arguments) == 1:
            return [work(arguments[0])]
        calls = [self.submit(work, argument) for argument in arguments]
        wait(calls)
        return [call.result() for call in calls]
