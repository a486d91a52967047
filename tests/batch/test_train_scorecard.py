"""Training: the arithmetic of the fit, the two views, and the model file that is shipped."""

import json
from pathlib import Path

import numpy as np
import pytest

import fan_identity.io
from fan_identity.batch.scorecard_fit import BINS, FALLS, RISES, Rows, fit_points
from fan_identity.batch.simulate import SaleSettings, simulate
from fan_identity.batch.train_scorecard import (
    LabelledUser,
    as_web_log,
    calibrated,
    figures,
    labelled_users,
    last_profile,
    sampled_profiles,
    to_json,
    training_rows,
    users_of,
)
from fan_identity.domain.activity import TYPE_INDEX
from fan_identity.domain.profile import FEATURES, ActivityFacts
from fan_identity.domain.scorecard import Scorecard

pytest.importorskip("sklearn")

UNSEEN = SaleSettings(fans=1_500, bots=150, seed=901)


@pytest.fixture(scope="module")
def users():
    return users_of(UNSEEN)


@pytest.fixture(scope="module")
def shipped():
    return Scorecard.from_json((Path(fan_identity.io.__path__[0]) / "scorecard.json").read_bytes())


def rows_where(feature: str, fan_values: list[float], bot_values: list[float]) -> Rows:
    values = np.zeros((len(fan_values) + len(bot_values), len(FEATURES)))
    values[:, FEATURES.index(feature)] = fan_values + bot_values
    is_fan = np.array([1.0] * len(fan_values) + [0.0] * len(bot_values))
    return Rows(values, is_fan, np.ones(len(values)))


def test_the_fit_learns_what_tells_fans_from_bots():
    points = fit_points(rows_where("failureShare", [0, 0, 0, 0.8], [0.8, 0.8, 0.8, 0]), penalty=1e-4)
    bins = points.features["failureShare"].points
    assert bins[0] > 0 > bins[-1]
    assert all(max(map(abs, points.features[name].points)) <= 1 for name in FEATURES if name != "failureShare")


def test_a_monotone_feature_never_turns_round():
    # Here the bots have the fewest failures: against the direction, so the feature must not count at all.
    points = fit_points(rows_where("failureShare", [0.8, 0.8, 0.8], [0.0, 0.0, 0.0]), penalty=1e-4)
    assert len(set(points.features["failureShare"].points)) == 1


def test_a_fit_needs_both_kinds():
    with pytest.raises(ValueError, match="both needed"):
        fit_points(rows_where("failureShare", [0.1], []), penalty=1)


def test_a_small_training_makes_a_usable_model_and_the_same_twice(users):
    rows = training_rows(users)
    first = calibrated(fit_points(rows, penalty=3e-3), users)
    second = calibrated(fit_points(rows, penalty=3e-3), users)
    assert to_json(first) == to_json(second)
    card = Scorecard.from_json(to_json(first))
    assert figures(card, users)["rocAuc"] > 0.9
    lowest = first.base_points + sum(min(*bins.points, bins.unknown) for bins in first.features.values())
    highest = first.base_points + sum(max(*bins.points, bins.unknown) for bins in first.features.values())
    assert lowest == 0
    assert 9_900 < highest <= 10_000


def test_labelled_users_are_sorted_and_without_duplicates(users):
    simulation = simulate(UNSEEN)
    assert sum(len(user.history) for user in users) == simulation.counts["activity"]
    assert all(user.history == sorted(set(user.history)) for user in users)
    assert labelled_users(simulation, UNSEEN.end_ms) == users


def test_rows_of_a_user_weigh_the_same_however_busy(users):
    busy = max(users, key=lambda user: len(user.history))
    assert len(sampled_profiles(busy)) > 8
    assert training_rows([busy]).weights.sum() == pytest.approx(1)
    assert sampled_profiles(busy)[-1] == last_profile(busy)


def test_the_web_log_view_shows_only_what_a_web_log_has():
    def request(second: float, kind: str, address: int, number: int) -> ActivityFacts:
        return ActivityFacts(int(second * 1_000), f"a{number}", TYPE_INDEX[kind], address, 5, 6, 0)

    fan = LabelledUser([request(1.9, "login", 1, 1), request(2.2, "search", 1, 2), request(9, "login", 2, 3)], "fan")
    bot = LabelledUser([request(1.2, "purchase", 1, step) for step in range(4, 8)], "scripted-buyer")
    (seen,) = as_web_log([fan, bot])
    assert seen.kind == "scripted-buyer"
    assert {facts.time_ms for facts in seen.history} == {1_000, 2_000}
    assert {facts.type_index for facts in seen.history} == {TYPE_INDEX["pageView"], TYPE_INDEX["search"]}
    assert {(facts.device, facts.event) for facts in seen.history} == {(0, 0)}


def test_the_shipped_model_tells_unseen_fans_from_bots(shipped, users):
    report = figures(shipped, users)
    assert 0.95 < report["rocAuc"] < 0.998
    assert report["precisionAt1Percent"] > 0.9
    assert report["fanArmShares"]["1"] + report["fanArmShares"]["2"] > 0.8
    assert report["botArmShares"]["4"] + report["botArmShares"]["5"] > 0.75
    assert sum(report["fanArmShares"].values()) == pytest.approx(1, abs=1e-3)


def test_one_activity_is_nothing_to_judge_by(shipped, users):
    for user in users[:200]:
        score = shipped.score(last_profile(LabelledUser(user.history[:1], user.kind)))
        assert score.arm_risk in (2, 3)
        assert score.bon_score < 0.15


def test_the_shipped_model_is_monotone_where_it_says_so(shipped):
    for name, (edges, direction) in BINS.items():
        bins = shipped.file.features[name]
        assert bins.edges == edges
        if direction == FALLS:
            assert list(bins.points) == sorted(bins.points, reverse=True)
        elif direction == RISES:
            assert list(bins.points) == sorted(bins.points)


def test_the_shipped_file_is_written_as_the_script_writes(shipped):
    data = (Path(fan_identity.io.__path__[0]) / "scorecard.json").read_bytes()
    assert json.loads(to_json(shipped.file)) == json.loads(data)
    assert len(to_json(shipped.file).splitlines()) == len(data.splitlines())
    assert json.loads(data)["training"]["trainingSeeds"] == [101, 102, 103, 104, 105, 106]
