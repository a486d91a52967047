"""One question to a service while somebody waits: its limits, and the error where it gives no answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ..domain.records import Failure
from .caller import Caller, CallLimits
from .errors import BackendUnavailableError, UnavailableError, UsageError

T = TypeVar("T")

GRACE_SECONDS: Final = 0.1


def waiting_limits(deadline_seconds: float, *, in_flight: int = CallLimits.in_flight) -> CallLimits:
    """Limits for questions that a request waits for: two attempts, and at most 1.5 calls a question on average.

    A question's attempts share the deadline: one that hangs uses it up, as trying a slow service again makes it slower.
    Retries are one for every second question; up to ten that a healthy service did not need are saved up.

    Args:
        deadline_seconds: of a question, retries included.
        in_flight: questions at the same time.
    """
    return CallLimits(
        in_flight=in_flight,
        attempt_seconds=deadline_seconds,
        deadline_seconds=deadline_seconds,
        batch_seconds=deadline_seconds,
        attempts=2,
        backoff_seconds=min(0.02, deadline_seconds / 10),
        failures_to_open=10,
        first_pause_seconds=0.5,
        longest_pause_seconds=10.0,
        retry_share=0.5,
        retry_reserve=0.5,
        most_retries=10.0,
    )


async def answered(name: str, caller: Caller, call: Callable[[], Awaitable[T]]) -> T:
    """What a call answers, under its caller's limits; time in the queue for a free slot counts too.

    Args:
        name: of the data source, for the error.
        caller: the limits.
        call: one attempt; raises as ``Caller.map`` has it.

    Raises:
        UnavailableError: there is no answer that can be used.
    """
    try:
        # The caller's own deadline comes first: it also tells the breaker.
        async with asyncio.timeout(caller.limits.deadline_seconds + GRACE_SECONDS):
            outcome = await caller.ask(call)
    except TimeoutError:
        raise UnavailableError(name, "no answer in time") from None
    except UnavailableError:
        raise
    except (UsageError, BackendUnavailableError) as error:
        raise UnavailableError(name, str(error)) from None
    if isinstance(outcome, Failure):
        raise UnavailableError(name, outcome.error.removeprefix(f"{caller.service}: "))
    return outcome
