"""What an identity check does to a score: exact, bounded, and never better than an import allows."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.import_effects import NOTHING_IMPORTED, raised_arm, with_imports
from fan_identity.domain.scorecard import ModelScore, Reason, describe
from fan_identity.domain.scores import latest_item, stored_reasons
from fan_identity.domain.verification import Status, Verification
from fan_identity.domain.verification_effects import EFFECTS, counts_itself, with_verification

from .test_import_effects import ITEMS, NOON, VALUES, encode, hundredths, plain

DAY = 24 * 60 * 60_000
DECIDED = st.sampled_from([Status.PASSED, Status.FAILED])


def verified(item, status, age_ms=0):
    return with_verification(item, Verification("v-1", "fan-1", Status(status), NOON - age_ms), NOON)


@given(ITEMS, st.sampled_from(Status), VALUES)
def test_a_score_adds_up_exactly_and_stays_in_bounds_under_imports_too(item, status, values):
    for under in (verified(item, status), with_imports(verified(item, status), values)):
        parts = [under["baseScore"], under["otherPoints"], *[reason["points"] for reason in under["reasons"]]]
        assert sum(map(hundredths, parts)) == hundredths(under["accountScore"])
        assert 0 <= under["accountScore"] <= 100
        assert 1 <= under["armRisk"] <= 5


@given(ITEMS)
def test_a_passed_check_lowers_the_risk_by_one_level_and_five_points_at_most(item):
    under = verified(item, "PASSED")
    assert 0 <= hundredths(under["accountScore"]) - hundredths(item["accountScore"]) <= 500
    assert item["armRisk"] - 1 <= under["armRisk"] <= item["armRisk"]


@given(ITEMS)
def test_a_failed_check_raises_it_and_is_bounded_too(item):
    under = verified(item, "FAILED")
    assert 0 <= hundredths(item["accountScore"]) - hundredths(under["accountScore"]) <= 1_000
    assert under["armRisk"] == max(min(item["armRisk"] + 1, 5), 3)


@given(ITEMS, st.sampled_from([Status.PENDING, Status.CANCELLED, Status.EXPIRED]))
def test_a_check_without_an_outcome_does_nothing(item, status):
    assert encode(verified(item, status)) == encode(item)


@given(ITEMS, VALUES)
def test_a_passed_check_is_never_better_than_an_import_allows(item, values):
    """The least ARM an import demands holds, and its points are taken whole, as far as there are any."""
    under = with_imports(verified(item, "PASSED"), values)
    assert under["armRisk"] >= raised_arm(1, values)
    without = with_imports(item, values)
    assert under["armRisk"] >= without["armRisk"] - 1
    assert hundredths(under["accountScore"]) - hundredths(without["accountScore"]) <= 500
    best = with_imports(plain(account_score=100.0, arm_risk=1), values)
    assert under["accountScore"] <= best["accountScore"]


@given(ITEMS, DECIDED, VALUES, VALUES)
def test_imports_are_taken_back_and_the_check_stays(item, status, before, after):
    checked = verified(item, status)
    under = with_imports(checked, before)
    assert encode(with_imports(under, after)) == encode(with_imports(checked, after))
    stored = msgspec.json.decode(encode(latest_item(under)))
    assert with_imports(stored, NOTHING_IMPORTED) == latest_item(checked)


@given(ITEMS, DECIDED)
def test_an_item_is_not_changed_in_place(item, status):
    before = encode(item)
    verified(item, status)
    assert encode(item) == before


@pytest.mark.parametrize(("age_ms", "days"), [(0, 0), (DAY - 1, 0), (DAY, 1), (180 * DAY, 180)])
def test_the_reason_says_how_long_ago_it_was(age_ms, days):
    under = verified(plain(), "FAILED", age_ms)
    assert under["reasons"][-1] == {"code": "IDENTITY_CHECK_FAILED", "value": days, "points": -10.0}
    assert under["verification"]["status"] == "FAILED"
    (told,) = [describe(reason) for reason in stored_reasons(under) if reason.code == "IDENTITY_CHECK_FAILED"]
    assert told == f"\N{MINUS SIGN}10.00: days since a check of the identity failed: {days}"


def test_a_model_that_names_the_check_has_counted_it():
    def score(code):
        return ModelScore(50.0, 3, 0.5, 50.0, (Reason(code, code, None, 0.0),), "m")

    assert [counts_itself(score(effect.code)) for effect in EFFECTS.values()] == [True, True]
    assert not counts_itself(score("VELOCITY"))
