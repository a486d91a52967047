"""Faults on demand: what goes wrong with the calls to a service, and for which of them."""

import asyncio
import random
from collections.abc import Collection
from typing import Annotated, Any, Literal

import msgspec

API_SERVICES: tuple[str, ...] = (
    "account_info",
    "campaigns",
    "phone_scores",
    "eligibility",
    "event_details",
    "lnaa",
    "identity_checks",
)
"""The services the API asks, by their settings."""

SERVICES: tuple[str, ...] = ("accounts", "identity", "model", *API_SERVICES)

Body = Literal["nan", "zero", "six", "text", "half", "html", "short", "huge"]


class Fault(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """What goes wrong with a service's calls; the parts add up.

    Attributes:
        delay_ms: answers come this much later, milliseconds.
        hang: no answer at all, until the caller hangs up.
        status: answer with this HTTP status instead.
        retry_after: seconds, the ``Retry-After`` header beside ``status``.
        body: what the answer holds instead. ``nan``: a NaN where a number belongs; ``zero``, ``six``: an armRisk of 0
            or 6; ``text``: a text where a number belongs; ``half``: JSON that ends in its middle; ``html``: a page;
            ``short``: one score too few; ``huge``: two million bytes more.
        reset: the connection is reset instead of an answer.
        redirect: answer with a redirect (307) to this address instead.
        rate: share of calls that suffer, drawn from the sandbox's seed.
        count: how many calls suffer, then none does; None for no limit.
        users: only calls for these users suffer, and in a batch only their scores are spoilt.
    """

    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 0
    hang: bool = False
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    retry_after: Annotated[int, msgspec.Meta(ge=0)] | None = None
    body: Body | None = None
    reset: bool = False
    redirect: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000, pattern="^[!-~]+$")] | None = None
    rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    count: Annotated[int, msgspec.Meta(ge=0)] | None = None
    users: list[str] | None = None


class Faults:
    """The faults in force, by service."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._faults: dict[str, Fault] = {}
        self._left: dict[str, int] = {}

    def put(self, faults: dict[str, Fault]) -> None:
        """Sets the faults of the services named; the others' stay."""
        for service, fault in faults.items():
            self._faults[service] = fault
            if fault.count is None:
                self._left.pop(service, None)
            else:
                self._left[service] = fault.count

    def clear(self) -> None:
        """Ends all faults."""
        self._faults.clear()
        self._left.clear()

    def shown(self) -> dict[str, Any]:
        """The faults in force, with what is left of their counts."""
        return {
            service: {**msgspec.to_builtins(fault), **({"left": self._left[service]} if service in self._left else {})}
            for service, fault in self._faults.items()
        }

    def drawn(self, service: str, users: Collection[str]) -> Fault | None:
        """The fault this call suffers, or None."""
        fault = self._faults.get(service)
        if fault is None or (fault.users is not None and not set(fault.users) & set(users)):
            return None
        if self._left.get(service) == 0 or self._random.random() >= fault.rate:
            return None
        if service in self._left:
            self._left[service] -= 1
        return fault


async def wait_for(fault: Fault) -> None:
    """Waits as the fault says; forever where it hangs."""
    if fault.delay_ms:
        await asyncio.sleep(fault.delay_ms / 1_000)
    if fault.hang:
        await asyncio.Event().wait()


def spoilt_score(score: dict[str, Any], body: Body | None) -> dict[str, Any]:
    """A score object spoilt as ``body`` says; itself where that spoils the whole answer instead."""
    changes: dict[Body, dict[str, Any]] = {
        "nan": {"accountScore": float("nan")},
        "zero": {"armRisk": 0},
        "six": {"armRisk": 6},
        "text": {"accountScore": "high"},
    }
    return {**score, **changes.get(body, {})} if body else score


def spoilt_features(answer: dict[str, Any], body: Body | None) -> dict[str, Any]:
    """An Accounts answer spoilt as ``body`` says; itself where that spoils the whole answer, or means armRisk."""
    values: dict[Body, Any] = {"nan": float("nan"), "text": "many"}
    if body not in values:
        return answer
    return {**answer, "features": {**answer["features"], "activityCount": values[body]}}
