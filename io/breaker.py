"""What keeps a service that is down from being called: a circuit breaker and a budget for retries."""

from collections.abc import Callable
from enum import Enum
from typing import Final
from weakref import WeakSet


class Admission(Enum):
    """What a caller may do.

    Attributes:
        CALL: call.
        PROBE: call; the outcome decides whether others may. Exactly one ``succeeded`` or ``failed`` must follow.
        WAIT: a probe is under way: wait for its outcome, then ask again.
        REFUSE: the service is taken to be down; do not call.
    """

    CALL = "call"
    PROBE = "probe"
    WAIT = "wait"
    REFUSE = "refuse"


class Breaker:
    """A circuit breaker: closed, open, or half-open (Nygard, *Release It!*, 2007).

    It opens after so many failed attempts in a row. While open nothing is called. After a pause one caller probes: if
    that succeeds the breaker closes, else it stays open for twice the pause.

    Args:
        clock: seconds, monotonic.
        failures_to_open: failed attempts in a row that open it.
        first_pause: seconds from opening to the first probe.
        longest_pause: seconds the pause grows to.
        service: whose breaker it is, for ``open_services``; "" for none that anybody asks for.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        service: str = "",
        failures_to_open: int = 20,
        first_pause: float = 1.0,
        longest_pause: float = 30.0,
    ) -> None:
        self._clock = clock
        self._failures_to_open: Final = failures_to_open
        self._first_pause: Final = first_pause
        self._longest_pause: Final = longest_pause
        self._failures = 0
        self._pause = first_pause
        self._opened_at: float | None = None
        self._probing = False
        self.service: Final = service
        if service:
            _known.add(self)

    @property
    def is_open(self) -> bool:
        """Whether the service is taken to be down; also while a probe is under way."""
        return self._opened_at is not None

    def admit(self) -> Admission:
        """Asks whether to call now."""
        if self._opened_at is None:
            return Admission.CALL
        if self._probing:
            return Admission.WAIT
        if self._clock() - self._opened_at < self._pause:
            return Admission.REFUSE
        self._probing = True
        return Admission.PROBE

    def succeeded(self, *, probe: bool = False) -> None:
        """An attempt was answered. A late answer from before the breaker opened does not close it."""
        if self._opened_at is not None and not probe:
            return
        self._failures = 0
        if probe:
            self._probing = False
            self._opened_at = None
            self._pause = self._first_pause

    def failed(self, *, probe: bool = False) -> None:
        """An attempt failed in a way that is the service's: no answer, overload, an error of its own."""
        if probe:
            self._probing = False
            self._opened_at = self._clock()
            self._pause = min(self._pause * 2, self._longest_pause)
            return
        self._failures += 1
        if self._failures >= self._failures_to_open and self._opened_at is None:
            self._opened_at = self._clock()


_known: Final[WeakSet[Breaker]] = WeakSet()


def open_services() -> dict[str, bool]:
    """By service whether a breaker of it is open in this process; every service that has been called is there."""
    services: dict[str, bool] = {}
    for breaker in list(_known):
        services[breaker.service] = services.get(breaker.service, False) or breaker.is_open
    return services


class RetryBudget:
    """Bounds retries to a share of requests, so that a service in trouble does not get many times its load.

    Every request pays in ``share``; every retry takes out 1 (the retry budget of Finagle). Over any stretch of requests
    calls <= requests * (1 + share) + most.

    Args:
        share: retries a request, on average.
        reserve: retries to begin with.
        most: retries that can be saved up.
    """

    def __init__(self, share: float, reserve: float, most: float) -> None:
        self._share: Final = share
        self._most: Final = most
        self._balance = reserve

    def request(self) -> None:
        """A request is made."""
        self._balance = min(self._balance + self._share, self._most)

    def take(self) -> bool:
        """Takes a retry out, where there is one left."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
