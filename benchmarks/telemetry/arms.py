"""The three ways the program runs, and how their rates are compared."""

import os
import statistics
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ..serving.systems import free_port
from ..streams.rounds import verdict
from .listeners import Heard, listening

REMOVED: Final = "hooks taken out"
OFF: Final = "off"
ON: Final = "on"
ARMS: Final = (REMOVED, OFF, ON)
LEAST: Final = {OFF: 0.99, ON: 0.95}
"""Of the rate without hooks."""


def command(arm: str) -> list[str]:
    """The program's command of an arm."""
    module = f"{__package__}.bare" if arm == REMOVED else "fan_identity.pipelines.cli"
    return [sys.executable, "-m", module]


@contextmanager
def environment(arm: str) -> Generator[tuple[dict[str, str], Heard]]:
    """The environment of an arm for the time of a ``with`` block, and what was heard in it."""
    own = {name: text for name, text in os.environ.items() if not name.startswith(("FAN_IDENTITY_", "OTEL_"))}
    if arm != ON:
        yield own, Heard()
        return
    with listening(free_port()) as (more, heard):
        yield own | more, heard


@dataclass
class Rates:
    """What one kind of work came to, by arm, a number a round.

    Attributes:
        name: of the work.
        unit: of the numbers.
        rates: by arm.
    """

    name: str
    unit: str
    rates: dict[str, list[float]] = field(default_factory=lambda: {arm: [] for arm in ARMS})

    def ratio(self, arm: str) -> float:
        """The median of the rounds' ratios to the rate without hooks: a machine that drifts drifts for both."""
        return statistics.median(self._ratios(arm))

    def _ratios(self, arm: str) -> list[float]:
        return [one / bare for one, bare in zip(self.rates[arm], self.rates[REMOVED], strict=True)]

    def show(self) -> bool:
        """Prints medians and ratios; whether the targets are met."""
        print(f"\n{self.name}")
        print(f"{'telemetry':20}{self.unit:>14}{'min':>10}{'max':>10}{'ratio':>8}{'lowest':>8}{'highest':>9}")
        for arm in ARMS:
            rates, ratios = self.rates[arm], self._ratios(arm)
            print(
                f"{arm:20}{statistics.median(rates):>14,.0f}{min(rates):>10,.0f}{max(rates):>10,.0f}"
                f"{self.ratio(arm):>8.3f}{min(ratios):>8.3f}{max(ratios):>9.3f}"
            )
        met = True
        for arm, least in LEAST.items():
            good = self.ratio(arm) >= least
            met = met and good
            print(f"  {arm}: costs at most {1 - least:.0%}: {1 - self.ratio(arm):.1%} {verdict(good)}")
        return met


def order(number: int) -> tuple[str, ...]:
    """The order of the arms in a round: each comes first, second and last as often."""
    turn = number % len(ARMS)
    turned = ARMS[turn:] + ARMS[:turn]
    return turned if number // len(ARMS) % 2 == 0 else turned[::-1]
