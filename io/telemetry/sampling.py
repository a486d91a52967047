"""Which traces are recorded: OpenTelemetry's samplers by their names, decided before a span is made.

A span that is not recorded still costs some 10 µs in OpenTelemetry's SDK; of a hundred records ninety-nine are not
sampled, and each is to cost a random number. So the decision is made here, and the SDK is asked for chosen spans only.

Source: OpenTelemetry specification, "Environment Variable Specification" (OTEL_TRACES_SAMPLER) and "TraceIdRatioBased".
"""

import random
from collections.abc import Mapping
from typing import Final, NamedTuple

from ...domain.traceparent import TraceParent
from ..errors import UsageError

DEFAULT_RATIO: Final = 0.01
"""Where OTEL_TRACES_SAMPLER does not say otherwise: one trace in a hundred."""

_PARENT_BASED: Final = "parentbased_"
_RATIO: Final = "traceidratio"
_FIXED: Final = {"always_on": 1.0, "always_off": 0.0}
_LOW_BITS: Final = 2**64


class Sampling(NamedTuple):
    """Which traces are recorded.

    Attributes:
        ratio: of those that begin here, 0 to 1.
        by_parent: whether one that began elsewhere is recorded where its parent is; else by its id and the ratio.
    """

    ratio: float = DEFAULT_RATIO
    by_parent: bool = True

    @property
    def never(self) -> bool:
        """Whether nothing is ever recorded."""
        return not self.ratio and not self.by_parent

    def chooses(self, parent: TraceParent | None) -> bool:
        """Whether a span is recorded; one without a parent begins a trace."""
        if parent is None:
            return random.random() < self.ratio  # noqa: S311 - a sample, no secret
        if self.by_parent:
            return parent.sampled
        return parent.trace_id % _LOW_BITS < self.ratio * _LOW_BITS  # the same in every process


def sampling_of(environment: Mapping[str, str]) -> Sampling:
    """The sampling of OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG; ``parentbased_always_off`` follows parents only.

    Raises:
        UsageError: a sampler we do not have, or a share that is none.
    """
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower() or _PARENT_BASED + _RATIO
    by_parent, own = name.startswith(_PARENT_BASED), name.removeprefix(_PARENT_BASED)
    if own in _FIXED:
        return Sampling(_FIXED[own], by_parent)
    if own != _RATIO:
        names = ", ".join(prefix + one for prefix in ("", _PARENT_BASED) for one in (*_FIXED, _RATIO))
        raise UsageError(f"OTEL_TRACES_SAMPLER: one of {names}")
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    try:
        ratio = float(text) if text else DEFAULT_RATIO
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise UsageError("OTEL_TRACES_SAMPLER_ARG: a share from 0 to 1, such as 0.01")
    return Sampling(ratio, by_parent)
