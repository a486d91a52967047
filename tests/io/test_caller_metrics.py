"""What came of calls, as the metrics have it: an outcome an item, whatever attempts it took; breakers by service."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from fan_identity.io.breaker import open_services
from fan_identity.io.caller import Caller, CallLimits, RefusedError, TransientError
from fan_identity.io.telemetry import metrics

LIMITS = CallLimits(
    attempts=3, attempt_seconds=0.05, deadline_seconds=20, backoff_seconds=0.001, longest_backoff_seconds=0.001
)


@pytest.fixture
def listened() -> Iterator[None]:
    metrics.forget()
    metrics.switch.on = True
    yield
    metrics.forget()


def ask(call: Any, *, service: str = "model", limits: CallLimits = LIMITS, items: int = 1) -> list[Any]:
    return asyncio.run(Caller(service, limits=limits).gather(range(items), call))


def outcomes() -> dict[tuple[str, ...], int]:
    counts = {labels: sum(cell.snapshot()[0]) for labels, cell in metrics.calls.items()}
    return {labels: count for labels, count in counts.items() if count}


def raising(error: Exception) -> Any:
    async def call(item: int) -> None:
        raise error

    return call


async def fine(item: int) -> int:
    return item


async def hanging(item: int) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("call", "outcome", "retries"),
    [
        (fine, "ok", None),
        (raising(RefusedError("model_refused", "no")), "refused", None),
        (raising(TransientError("status 503", status=503)), "transient", 2),
        (hanging, "timeout", 2),
    ],
)
def test_an_item_has_one_outcome_whatever_its_attempts(listened, call, outcome, retries):
    ask(call)
    assert outcomes() == {("model", outcome): 1}
    assert metrics.retries["model",].value == retries


def test_what_is_not_called_says_so_and_the_breaker_is_open(listened):
    async def both() -> dict[str, bool]:
        caller = Caller("accounts", limits=CallLimits(attempts=1, failures_to_open=1, first_pause_seconds=60))
        await caller.gather([0], raising(TransientError("down")))
        await caller.gather([1, 2], fine)
        return open_services()

    found = asyncio.run(both())
    assert outcomes() == {("accounts", "transient"): 1, ("accounts", "not_called"): 2}
    assert found["accounts"] is True


def test_nothing_is_kept_while_nobody_listens():
    metrics.forget()
    ask(fine)
    assert outcomes() == {}
