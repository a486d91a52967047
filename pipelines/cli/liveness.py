"""``fan-identity run checkLiveness``: probes once, for a schedule, or again and again until it is told to stop."""

import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import FrameType
from typing import Any, Final

import typer
from rich.table import Table
from rich.text import Text

from ...domain.activity import format_time_ms
from ...domain.liveness import Probed, summary_of
from ...io.clock import now_ms
from ...io.durations import duration
from ...io.errors import BackendUnavailableError, UsageError
from ...io.liveness import WORKER, LivenessCheck, Teller, TellerThread
from ...io.logs import configure_logging
from ...io.telemetry import start
from .common import err, out, print_json, printable

_PROBLEM_CHARACTERS: Final = 300
_LAST_SECONDS: Final = 6.0


def run_liveness(every: str | None, store: str | None, metrics_port: int | None, *, as_json: bool) -> None:
    """Probes every part the settings name, tells of outages, and shows what it found.

    Args:
        every: between the beginnings of two rounds, until stopped: ``15s``; None for one round.
        store: overrides the setting. Likewise ``metrics_port``.
        metrics_port: where Prometheus is answered, while it goes on.
        as_json: one JSON object a round.

    Raises:
        UsageError: a setting is wrong, or names nothing to probe.
        typer.Exit: 3, something is down; only where there is one round.
    """
    from ...serving.liveness import all_parts  # noqa: PLC0415 - the other workers do without the API's settings
    from ...serving.settings import load_serving_settings  # noqa: PLC0415

    interval = None if every is None else _interval(every)
    settings = load_serving_settings(store=store, metrics_port=metrics_port)
    configure_logging(settings.log_level, WORKER, uuid.uuid4().hex)
    parts = all_parts(settings)
    start.start(WORKER, settings)
    teller = Teller.of(settings, parts, lambda text: err.print(printable(text, _PROBLEM_CHARACTERS)))
    check = LivenessCheck(settings, parts)
    try:
        if interval is None:
            _once(check, teller, as_json=as_json)
        else:
            _again_and_again(check, teller, interval, as_json=as_json)
    finally:
        start.shutdown()


def _interval(text: str) -> float:
    try:
        found = duration(text)
    except ValueError as error:
        raise UsageError(f"--every: {error}") from None
    if found < timedelta(seconds=1):
        raise UsageError("--every: a second at least; each round asks every part")
    return found.total_seconds()


def _once(check: LivenessCheck, teller: Teller | None, *, as_json: bool) -> None:
    probed = check.round()
    if probed is None:
        err.print(f"{WORKER} is switched off by its flag")
        if as_json:
            print_json({"worker": WORKER, "skipped": 1})
        return
    told = 0 if teller is None else teller.tell(probed)
    if as_json:
        print_json({"worker": WORKER, **summary_of(probed), "told": told})
    else:
        out.print(table_of(probed))
    if not all(one.up for one in probed):
        raise typer.Exit(BackendUnavailableError.exit_code)


def _again_and_again(check: LivenessCheck, teller: Teller | None, seconds: float, *, as_json: bool) -> None:
    telling = None if teller is None else TellerThread(teller)
    before: dict[str, bool] = {}
    err.print(f"{WORKER} is running; stop it with Ctrl-C")

    def do() -> None:
        probed = check.round()
        if as_json:
            print_json({"time": format_time_ms(now_ms()), "worker": WORKER, **_round_json(probed)})
            out.file.flush()
        if probed is None:
            return
        if telling is not None:
            telling.put(probed)
        if not as_json:
            _show_changes(before, probed)
        before.update({one.part: one.up for one in probed})

    try:
        until_signal(do, seconds)
    finally:
        if telling is not None:
            telling.close(_LAST_SECONDS)


def _round_json(probed: Sequence[Probed] | None) -> dict[str, Any]:
    return {"skipped": 1} if probed is None else summary_of(probed)


def until_signal(do: Callable[[], None], seconds: float) -> None:
    """Does something every so many seconds until SIGINT or SIGTERM; what is being done then is finished.

    A round that takes longer than ``seconds`` is followed by the next one at once; none is made up for.
    """
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        due = time.monotonic()
        while not stopped.wait(max(0.0, due - time.monotonic())):
            due = max(due + seconds, time.monotonic())
            do()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table_of(probed: Sequence[Probed]) -> Table:
    """What a round found, for people."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "part", "address", "ms", ""):
        table.add_column(name, justify="right" if name == "ms" else "left", no_wrap=name != "")
    for one in probed:
        mark = Text("up", "green") if one.up else Text("DOWN", "bold red")
        names = ", ".join(one.settings or (one.part,))
        table.add_row(
            mark,
            printable(names),
            printable(one.address),
            f"{one.seconds * 1_000:.0f}",
            printable(one.problem, _PROBLEM_CHARACTERS),
        )
    return table


def _show_changes(before: dict[str, bool], probed: Sequence[Probed]) -> None:
    if not before:
        out.print(table_of(probed))
        return
    for one in probed:
        if before.get(one.part) != one.up:
            what = "answers again" if one.up else f"is DOWN: {one.problem}"
            out.print(printable(f"{format_time_ms(now_ms())} {one.part} {what}", _PROBLEM_CHARACTERS), soft_wrap=True)
