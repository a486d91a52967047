"""Progress bars on standard error for long work."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .common import err

_REFRESH_SECONDS = 0.25


@contextmanager
def progress_bar(title: str, total: int, done: Callable[[], int]) -> Generator[None]:
    """Shows how far ``done`` is while the block runs; nothing where standard error is no terminal.

    Args:
        title: what is going on.
        total: what ``done`` ends at, about.
        done: asked four times a second, from another thread.
    """
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(_REFRESH_SECONDS):
                progress.update(task, completed=min(done(), total))

        thread = threading.Thread(target=follow, name="progress", daemon=True)
        if not progress.disable:
            thread.start()
        try:
            yield
            progress.update(task, completed=total)
        finally:
            ended.set()
            if thread.is_alive():
                thread.join()
