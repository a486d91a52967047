"""Scorecards: exact sums, bins, thresholds, and what makes a model file unusable."""

import json
import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.profile import FEATURES, Profile
from fan_identity.domain.scorecard import (
    IMPORT_REASON_CODES,
    REASON_CODES,
    VERIFICATION_REASON_CODES,
    FeatureBins,
    Reason,
    Scorecard,
    ScorecardError,
    describe,
)


def model(**changes: object) -> dict[str, object]:
    """A small model: two features have an effect, the others none."""
    features = {name: {"edges": [], "points": [0], "unknown": 0} for name in FEATURES}
    features["lastMinuteCount"] = {"edges": [10, 40], "points": [500, -250, -1250], "unknown": 10}
    features["failureShare"] = {"edges": [0.5], "points": [33, -3000], "unknown": 0}
    return {
        "modelVersion": "test-1",
        "description": "for tests",
        "basePoints": 6000,
        "armThresholds": [6500, 6000, 5000, 3000],
        "calibration": {"intercept": 5.0, "slope": -0.1},
        "features": features,
    } | changes


def card(**changes: object) -> Scorecard:
    return Scorecard.from_json(json.dumps(model(**changes)).encode())


def profile(**values: float | None) -> Profile:
    return Profile(0, tuple(values.get(name) for name in FEATURES))


def test_a_score_is_the_base_and_the_points_of_its_bins():
    score = card().score(profile(lastMinuteCount=48, failureShare=0.2))
    assert score.account_score == 47.83
    assert score.base_score == 60
    assert score.reasons == (
        Reason("BURST_IN_LAST_MINUTE", "lastMinuteCount", 48, -12.5),
        Reason("FAILED_ATTEMPTS", "failureShare", 0.2, 0.33),
    )
    assert score.arm_risk == 4
    assert score.bon_score == round(1 / (1 + math.exp(-(5 - 0.1 * 47.83))), 4)
    assert score.model_version == "test-1"


@pytest.mark.parametrize(("value", "points"), [(None, 10), (9.9, 500), (10, -250), (39, -250), (40, -1250)])
def test_an_edge_belongs_to_the_bin_above_it_and_none_has_its_own(value, points):
    score = card().score(profile(lastMinuteCount=value))
    assert score.account_score == (6000 + points) / 100


@pytest.mark.parametrize(
    ("base", "arm"), [(6500, 1), (6499, 2), (6000, 2), (5999, 3), (5000, 3), (4999, 4), (3000, 4), (2999, 5)]
)
def test_a_score_at_a_threshold_gets_the_better_level(base, arm):
    features = {name: {"edges": [], "points": [0], "unknown": 0} for name in FEATURES}
    assert card(basePoints=base, features=features).score(profile()).arm_risk == arm


def test_a_second_score_of_the_same_profile_is_the_same():
    same = card()
    user = profile(lastMinuteCount=12, failureShare=None)
    assert same.score(user) == same.score(user) == card().score(user)


POINTS = st.integers(-250, 250)


@st.composite
def scorecards(draw):
    features = {}
    for name in FEATURES:
        edges = sorted(draw(st.sets(st.integers(-5, 50), max_size=4)))
        points = draw(st.lists(POINTS, min_size=len(edges) + 1, max_size=len(edges) + 1))
        features[name] = {"edges": edges, "points": points, "unknown": draw(POINTS)}
    return card(basePoints=draw(st.integers(4_600, 5_400)), features=features)


VALUES = st.one_of(st.none(), st.integers(-10, 60), st.floats(-10, 60, allow_nan=False))


@given(scorecards(), st.lists(VALUES, min_size=len(FEATURES), max_size=len(FEATURES)))
def test_points_add_up_exactly_and_never_leave_the_scale(scorecard, values):
    score = scorecard.score(Profile(0, tuple(values)))
    total = round(score.base_score * 100) + sum(round(reason.points * 100) for reason in score.reasons)
    assert score.account_score == total / 100
    assert 0 <= score.account_score <= 100
    assert 0 <= score.bon_score <= 1
    assert 1 <= score.arm_risk <= 5
    effects = [(-abs(reason.points), FEATURES.index(reason.feature)) for reason in score.reasons]
    assert effects == sorted(effects)
    assert all(reason.points for reason in score.reasons)
    assert all(reason.value == values[FEATURES.index(reason.feature)] for reason in score.reasons)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=2))
def test_a_higher_account_score_is_never_riskier(bases):
    features = {name: {"edges": [], "points": [0], "unknown": 0} for name in FEATURES}
    low, high = (card(basePoints=base, features=features).score(profile()) for base in sorted(bases))
    assert low.arm_risk >= high.arm_risk
    assert low.bon_score >= high.bon_score


def with_bins(feature: str, **bins: object) -> dict[str, object]:
    features = dict(model()["features"])
    features[feature] = features[feature] | bins
    return {"features": features}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modelVersion": " "}, "modelVersion is blank"),
        ({"features": {}}, "features are missing: activityCount"),
        ({"features": model()["features"] | {"shoeSize": {"edges": [], "points": [0], "unknown": 0}}}, "unheard of"),
        (with_bins("failureShare", edges=[0.5, 0.5], points=[0, 0, 0]), "failureShare: edges are not"),
        (with_bins("failureShare", edges=[1, 0], points=[0, 0, 0]), "failureShare: edges are not"),
        (with_bins("failureShare", points=[1]), "failureShare: 1 edges need 2 points"),
        (with_bins("failureShare", points=[0, 0.5]), r"points.*failureShare|failureShare|Expected `int`"),
        (with_bins("failureShare", points=[0, -6000]), "scores could leave 0 to 100: -12.5"),
        (with_bins("failureShare", unknown=4000), "scores could leave 0 to 100"),
        ({"armThresholds": [1, 2, 3, 4]}, "four descending"),
        ({"armThresholds": [3, 2, 1]}, "four descending"),
        ({"calibration": {"intercept": 0, "slope": 0.1}}, "slope"),
        ({"calibration": None}, "not a scorecard"),
    ],
)
def test_an_unusable_file_is_refused_in_one_line(changes, message):
    with pytest.raises(ScorecardError, match=message) as caught:
        card(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"modelVersion": NaN}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data):
    with pytest.raises(ScorecardError, match="not a scorecard"):
        Scorecard.from_json(data)


@pytest.mark.parametrize("edge", [math.nan, math.inf])
def test_an_edge_that_is_no_number_is_refused(edge):
    file = card().file
    features = file.features | {"failureShare": FeatureBins((edge,), (0, 0), 0)}
    with pytest.raises(ScorecardError, match="not finite"):
        Scorecard(msgspec.structs.replace(file, features=features))


def test_every_feature_has_its_own_code_and_sentence():
    assert list(REASON_CODES) == list(FEATURES)
    codes = REASON_CODES | IMPORT_REASON_CODES | VERIFICATION_REASON_CODES
    assert len(set(codes.values())) == len(codes) == len(FEATURES) + 4
    for feature, code in codes.items():
        assert code == code.upper()
        sentences = {describe(Reason(code, feature, value, -1.5)) for value in (None, 0.25, 0.5)}
        assert all(sentence.startswith("\N{MINUS SIGN}1.50: ") for sentence in sentences)
        assert len(sentences) >= 2


def test_a_reason_reads_as_a_sentence():
    burst = Reason("BURST_IN_LAST_MINUTE", "lastMinuteCount", 48, -12.5)
    assert describe(burst) == "\N{MINUS SIGN}12.50: activities in the last minute, asset loads aside: 48"
    assert describe(Reason("FAILED_ATTEMPTS", "failureShare", 0.25, 1)) == "+1.00: 25 % of activities failed"
    assert describe(Reason("NEW", "fromAnotherModel", 0.5, 2)) == "+2.00: fromAnotherModel = 0.5"


def test_scores_fall_as_a_burst_grows():
    scores = [card().score(profile(lastMinuteCount=count)).account_score for count in range(60)]
    assert all(later <= earlier for earlier, later in pairwise(scores))
    assert scores[0] > scores[-1]
