"""Scorable rules: each reason, its bounds, and that the reasons are asked in a fixed order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import ACTIVITY_TYPES, MIN_EPOCH_MS, Activity
from fan_identity.domain.scorable import EARLIEST_MS, FUTURE_TOLERANCE_MS, Rejection, ScorableRules, rejection

NOW = 1_718_366_400_000
DAY = 86_400_000
RULES = ScorableRules(NOW, horizon_ms=30 * DAY, internal_accounts=frozenset({"monitor", " staff "}))


def activity(user="fan", kind="login"):
    return Activity("a1", kind, NOW, user)


@pytest.mark.parametrize("kind", ACTIVITY_TYPES)
def test_every_known_type_is_scorable(kind):
    assert rejection(activity(kind=kind), NOW, RULES) is None


@pytest.mark.parametrize("kind", ["", "Login", "login ", "LOGIN", "unheardOf"])
def test_other_types_are_not(kind):
    assert rejection(activity(kind=kind), NOW, RULES) is Rejection.UNKNOWN_TYPE


@pytest.mark.parametrize("user", [None, "", " ", "\t\n", "\u3000"])
def test_a_blank_user_is_nobody(user):
    assert rejection(activity(user), NOW, RULES) is Rejection.BLANK_USER


@pytest.mark.parametrize(
    ("time_ms", "reason"),
    [
        (NOW, None),
        (NOW + FUTURE_TOLERANCE_MS, None),
        (NOW + FUTURE_TOLERANCE_MS + 1, Rejection.IN_FUTURE),
        (NOW - 30 * DAY, None),
        (NOW - 30 * DAY - 1, Rejection.TOO_OLD),
        (0, Rejection.TOO_OLD),
        (MIN_EPOCH_MS, Rejection.TOO_OLD),
    ],
)
def test_time_is_held_against_the_rules_clock(time_ms, reason):
    assert rejection(activity(), time_ms, RULES) is reason


@pytest.mark.parametrize(
    ("time_ms", "reason"), [(EARLIEST_MS, None), (EARLIEST_MS - 1, Rejection.TOO_OLD), (0, Rejection.TOO_OLD)]
)
def test_without_a_horizon_only_broken_clocks_are_too_old(time_ms, reason):
    assert rejection(activity(), time_ms, ScorableRules(NOW)) is reason


def test_a_long_horizon_does_not_reach_behind_the_earliest_time():
    assert rejection(activity(), EARLIEST_MS - 1, ScorableRules(NOW, horizon_ms=10 * NOW)) is Rejection.TOO_OLD


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("monitor", Rejection.INTERNAL_ACCOUNT),
        (" staff ", Rejection.INTERNAL_ACCOUNT),
        ("staff", None),
        ("Monitor", None),
    ],
)
def test_internal_accounts_match_exactly(user, reason):
    assert rejection(activity(user), NOW, RULES) is reason


def test_of_several_reasons_one_counts():
    rules = ScorableRules(NOW, internal_accounts=frozenset({"monitor"}))
    assert rejection(activity("", "nothing"), 0, rules) is Rejection.UNKNOWN_TYPE
    assert rejection(activity(""), 0, rules) is Rejection.BLANK_USER
    assert rejection(activity("monitor"), 0, rules) is Rejection.TOO_OLD
    assert rejection(activity("monitor"), NOW + DAY, rules) is Rejection.IN_FUTURE


@given(st.integers(EARLIEST_MS, NOW * 2), st.integers(0, NOW), st.integers(EARLIEST_MS, NOW * 2))
def test_what_is_accepted_lies_in_the_window(time_ms, horizon_ms, now_ms):
    accepted = rejection(activity(), time_ms, ScorableRules(now_ms, horizon_ms)) is None
    assert accepted == (now_ms - horizon_ms <= time_ms <= now_ms + 300_000)


def test_reasons_are_counted_under_stable_names():
    assert {reason.value for reason in Rejection} == {
        "unknown_type",
        "blank_user",
        "too_old",
        "in_future",
        "internal_account",
    }
