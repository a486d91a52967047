"""What imports do to a score: exact, in bounds, only ever more risk, and taken back without a trace."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.import_effects import (
    NOTHING_IMPORTED,
    ImportedValues,
    bon_points,
    cluster_points,
    raised_arm,
    rescored,
    with_imports,
    without_imports,
)
from fan_identity.domain.imports import Cluster
from fan_identity.domain.keys import causal_version
from fan_identity.domain.messages import ScoringMessage
from fan_identity.domain.scorecard import ModelScore, Reason, describe
from fan_identity.domain.scores import cache_entry, latest_item, score_item, stored_reasons, version_of
from fan_identity.io.scoring_model import parse_score

NOON = 1_718_366_400_000
encode = msgspec.json.Encoder().encode

MESSAGE = ScoringMessage(
    global_user_id="fan-1",
    activity_id="a1",
    activity_type="login",
    occurred_at=NOON,
    request_id="r1",
    worker="enqueueFromStream",
)


def item_of(score):
    return score_item(MESSAGE, score, "scoreUsers", NOON)


def plain(account_score=80.0, arm_risk=1):
    reasons = (Reason("ASSET_LOADS", "assetShare", 0.25, account_score - 70),)
    return item_of(ModelScore(account_score, arm_risk, 0.25, 70.0, reasons, "m-1"))


# Of models behind HTTP: any score, ARM and reasons, some under the imports' own codes.
WIRE_REASONS = st.fixed_dictionaries(
    {
        "code": st.sampled_from(["VELOCITY", "BOT_OR_NOT_IMPORT", "CLUSTER_SIZE"]),
        "points": st.floats(-50, 50),
        "value": st.none() | st.floats(0, 1e6),
    }
)
ITEMS = st.fixed_dictionaries(
    {
        "accountScore": st.floats(0, 100),
        "armRisk": st.integers(1, 5),
        "bonScore": st.floats(0, 1),
        "modelVersion": st.just("remote-1"),
        "reasons": st.lists(WIRE_REASONS, max_size=8),
    },
    optional={"baseScore": st.floats(0, 100)},
).map(lambda wire: item_of(parse_score(encode(wire))))
BON_SCORES = st.sampled_from([0.0, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)
SIZES = st.sampled_from([1, 4, 5, 19, 20, 99, 100]) | st.integers(1, 10**6)
CLUSTERS = st.builds(Cluster, st.text(min_size=1, max_size=5), SIZES)
VALUES = st.builds(ImportedValues, st.none() | BON_SCORES, st.none() | CLUSTERS)


def hundredths(number):
    whole = round(number * 100)
    assert number == whole / 100, "no part of a hundredth is left over"
    return whole


@given(ITEMS, VALUES)
def test_a_score_under_imports_adds_up_exactly_and_stays_in_bounds(item, values):
    under = with_imports(item, values)
    parts = [under["baseScore"], under["otherPoints"], *[reason["points"] for reason in under["reasons"]]]
    assert sum(map(hundredths, parts)) == hundredths(under["accountScore"])
    assert 0 <= under["accountScore"] <= 100
    assert 1 <= under["armRisk"] <= 5


@given(ITEMS, VALUES, VALUES)
def test_imports_are_taken_back_without_a_trace(item, before, after):
    assert encode(with_imports(item, NOTHING_IMPORTED)) == encode(item)
    under = with_imports(item, before)
    assert encode(with_imports(under, before)) == encode(under)
    assert encode(with_imports(under, after)) == encode(with_imports(item, after))
    assert encode(without_imports(under)) == encode(item)
    stored = msgspec.json.decode(encode(latest_item(under)))
    assert with_imports(stored, NOTHING_IMPORTED) == latest_item(item)


@given(ITEMS, VALUES)
def test_an_item_is_not_changed_in_place(item, values):
    before = encode(item)
    under = with_imports(item, values)
    assert encode(item) == before
    again = encode(under)
    with_imports(under, NOTHING_IMPORTED)
    assert encode(under) == again


@given(ITEMS, VALUES)
def test_imports_only_raise_risk(item, values):
    under = with_imports(item, values)
    assert under["accountScore"] <= item["accountScore"]
    assert under["armRisk"] >= item["armRisk"]


@given(ITEMS, st.tuples(BON_SCORES, BON_SCORES), st.tuples(SIZES, SIZES))
def test_more_of_a_bot_or_a_larger_cluster_is_never_less_risk(item, bon_scores, sizes):
    less = with_imports(item, ImportedValues(min(bon_scores), Cluster("c", min(sizes))))
    more = with_imports(item, ImportedValues(max(bon_scores), Cluster("c", max(sizes))))
    assert more["accountScore"] <= less["accountScore"]
    assert more["armRisk"] >= less["armRisk"]


@given(ITEMS, VALUES)
def test_what_is_imported_stands_in_the_item(item, values):
    under = with_imports(item, values)
    assert under["bonScore"] == (item["bonScore"] if values.bon_score is None else values.bon_score)
    if values.cluster is None:
        assert under["clusterId"] is None and "clusterSize" not in under
    else:
        assert (under["clusterId"], under["clusterSize"]) == (values.cluster.cluster_id, values.cluster.size)
    if values == NOTHING_IMPORTED:
        assert "model" not in under
    else:
        said = {name: item[name] for name in ("accountScore", "armRisk", "bonScore")}
        assert under["model"] == {**said, "reasons": len(item["reasons"])}


@pytest.mark.parametrize(
    ("bon_score", "points"),
    [(0.0, 0), (0.5, 0), (0.50001, 0), (0.5123, -98), (0.75, -2_000), (0.9, -3_200), (1.0, -4_000)],
)
def test_points_of_a_bot_or_not_score(bon_score, points):
    assert bon_points(bon_score) == points


@pytest.mark.parametrize(
    ("size", "points"), [(1, 0), (4, 0), (5, -500), (19, -500), (20, -1_000), (99, -1_000), (100, -2_000)]
)
def test_points_of_a_clusters_size(size, points):
    assert cluster_points(size) == points


@pytest.mark.parametrize(
    ("bon_score", "size", "arm_before", "arm_after"),
    [
        (0.4999, None, 1, 1),
        (0.5, None, 1, 3),
        (0.7499, None, 1, 3),
        (0.75, None, 1, 4),
        (0.9, None, 2, 5),
        (0.5, None, 4, 4),
        (None, 19, 2, 2),
        (None, 20, 2, 3),
        (None, 10_000, 5, 5),
        (0.5, 20, 1, 4),
        (0.1, 20, 1, 2),
    ],
)
def test_arm_under_imports(bon_score, size, arm_before, arm_after):
    cluster = None if size is None else Cluster("c", size)
    assert raised_arm(arm_before, ImportedValues(bon_score, cluster)) == arm_after


def test_a_whole_example():
    under = with_imports(plain(), ImportedValues(0.9, Cluster("c-7", 25)))
    assert {name: value for name, value in under.items() if plain().get(name) != value} == {
        "accountScore": 38.0,
        "armRisk": 5,
        "bonScore": 0.9,
        "clusterId": "c-7",
        "clusterSize": 25,
        "reasons": [
            {"code": "ASSET_LOADS", "value": 0.25, "points": 10.0},
            {"code": "BOT_OR_NOT_IMPORT", "value": 0.9, "points": -32.0},
            {"code": "CLUSTER_SIZE", "value": 25, "points": -10.0},
        ],
        "model": {"accountScore": 80.0, "armRisk": 1, "bonScore": 0.25, "reasons": 1},
    }


def test_no_more_points_are_taken_than_there_are():
    under = with_imports(plain(35.0), ImportedValues(1.0, Cluster("c", 100)))
    assert under["accountScore"] == 0
    assert [reason["points"] for reason in under["reasons"][1:]] == [-35.0, 0.0]
    assert b"-0.0" not in encode(under)


def test_a_reason_is_given_where_only_the_arm_rises():
    under = with_imports(plain(), ImportedValues(0.5))
    assert under["reasons"][1:] == [{"code": "BOT_OR_NOT_IMPORT", "value": 0.5, "points": 0.0}]
    assert (under["accountScore"], under["armRisk"]) == (80.0, 3)


@pytest.mark.parametrize("values", [ImportedValues(0.49), ImportedValues(None, Cluster("home", 4))])
def test_what_has_no_effect_on_the_score_is_no_reason(values):
    under = with_imports(plain(), values)
    assert under["reasons"] == plain()["reasons"]
    assert (under["accountScore"], under["armRisk"]) == (80.0, 1)


def test_the_reasons_are_told_in_sentences_the_strongest_first():
    under = with_imports(plain(), ImportedValues(0.9, Cluster("c-7", 1_234)))
    assert [describe(reason) for reason in stored_reasons(under)] == [
        "\N{MINUS SIGN}32.00: an import says: a bot with a probability of 90 %",
        "\N{MINUS SIGN}20.00: accounts in the same cluster: 1,234",
        "+10.00: 25 % of activities are images and scripts a browser loads by itself",
    ]


@given(ITEMS, VALUES, VALUES, st.integers(1, 10**6))
def test_a_latest_item_is_rescored_as_if_scored_under_the_new_imports(item, before, after, generation):
    stored = msgspec.json.decode(encode(latest_item(with_imports(item, before))))
    version, latest, score, cache = rescored(stored, after, generation, NOON + 60_000)
    scored = with_imports({**item, "dateUpdated": "2024-06-14T12:01:00.000Z"}, after)
    assert version == version_of(MESSAGE, generation) == causal_version(NOON, "a1", generation)
    assert score == scored
    assert latest == latest_item(scored)
    assert cache == cache_entry(scored, version, NOON)
