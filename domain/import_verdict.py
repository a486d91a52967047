"""Whether a version may become active: its comparison held against thresholds."""

import msgspec

from .imports import Comparison, Thresholds

_SMALL = 0.01
"""Shares below are told to the hundredth of a per cent."""


class Check(msgspec.Struct, frozen=True, rename="camel"):
    """A figure of a comparison beside the most that is allowed.

    Attributes:
        setting: names the threshold, as in ``--max-<setting>``.
        what: what is counted, such as ``rows are bad``.
        number: how many there are.
        of: of how many.
        most: the share allowed, 0 to 1.
    """

    setting: str
    what: str
    number: int
    of: int
    most: float

    @property
    def share(self) -> float:
        """0 to 1; 0 of nothing is 0."""
        return self.number / self.of if self.of else 0.0

    @property
    def exceeded(self) -> bool:
        """Whether it alone would refuse the import."""
        return self.share > self.most


def checks(comparison: Comparison, thresholds: Thresholds) -> tuple[Check, ...]:
    """Every figure that ``imports.refusal`` holds against a threshold, in its order."""
    had = comparison.removed + comparison.changed + comparison.unchanged
    scored = sum(map(sum, comparison.arm)) + comparison.unchanged
    return (
        Check("bad", "rows are bad", comparison.total_bad, comparison.rows, thresholds.bad),
        Check("unknown", "fans have never been scored", comparison.unknown, comparison.fans, thresholds.unknown),
        Check("removed", "fans of the active version are missing", comparison.removed, had, thresholds.removed),
        Check("arm-changes", "scored fans change ARM", comparison.arm_changes, scored, thresholds.arm_changes),
    )


def refusal(comparison: Comparison, thresholds: Thresholds) -> str | None:
    """Why a version must not become active, in one line that names the setting; None where it may."""
    if not comparison.fans:
        return "the files have no usable row"
    for check in checks(comparison, thresholds):
        if check.exceeded:
            share = f"{check.share:.1%}" if check.share >= _SMALL else f"{check.share:.2%}"
            return (
                f"{check.number:,} of {check.of:,} {check.what} ({share}), more than --max-{check.setting} "
                f"{check.most:g} allows; look at the report, then raise it if that is meant"
            )
    return None
