"""Which activities are scored, and why the others are not."""

from dataclasses import dataclass
from enum import StrEnum

from .activity import TYPE_INDEX, Activity

FUTURE_TOLERANCE_MS = 5 * 60 * 1_000
"""Clocks differ: an activity up to five minutes ahead of ours is accepted."""

EARLIEST_MS = 946_684_800_000
"""2000-01-01: an older time is a broken clock (1970) in any input, however old the input is."""


class Rejection(StrEnum):
    """Why an activity is not scored. Each is counted under its value."""

    UNKNOWN_TYPE = "unknown_type"
    BLANK_USER = "blank_user"
    TOO_OLD = "too_old"
    IN_FUTURE = "in_future"
    INTERNAL_ACCOUNT = "internal_account"


@dataclass(frozen=True)
class ScorableRules:
    """What a worker accepts.

    Attributes:
        now_ms: the clock activities are held against, epoch milliseconds.
        horizon_ms: how far back an activity may lie; None for no limit but ``EARLIEST_MS``.
        internal_accounts: user ids of the seller's own staff and monitors.
    """

    now_ms: int
    horizon_ms: int | None = None
    internal_accounts: frozenset[str] = frozenset()


def rejection(activity: Activity, time_ms: int, rules: ScorableRules) -> Rejection | None:
    """Says why an activity is not scorable, or None where it is.

    Args:
        activity: decoded.
        time_ms: its ``activity.time_ms``, passed because reading it costs a parse.
        rules: what the worker accepts.
    """
    if activity.activity_type not in TYPE_INDEX:
        return Rejection.UNKNOWN_TYPE
    user = activity.global_user_id
    if user is None or not user.strip():
        return Rejection.BLANK_USER
    if time_ms < EARLIEST_MS or (rules.horizon_ms is not None and time_ms < rules.now_ms - rules.horizon_ms):
        return Rejection.TOO_OLD
    if time_ms > rules.now_ms + FUTURE_TOLERANCE_MS:
        return Rejection.IN_FUTURE
    if user in rules.internal_accounts:
        return Rejection.INTERNAL_ACCOUNT
    return None
