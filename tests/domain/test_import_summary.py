import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.import_summary import (
    arm_totals,
    bad_words,
    books,
    headline,
    record_json,
    value_bins,
    verdict,
)
from fan_identity.domain.imports import (
    ClusterChanges,
    Comparison,
    ImportKind,
    State,
    VersionRecord,
)

NOTHING = ((0,) * 5,) * 5


def arm(moves):
    return tuple(tuple(moves.get((before, after), 0) for after in range(1, 6)) for before in range(1, 6))


def record(kind=ImportKind.BOT_OR_NOT, state=State.STAGED, **comparison):
    found = Comparison(**{"compared_with": "20261125T021500Z-0f0f0f0f", "fans": 100, **comparison})
    return VersionRecord("20261126T021500Z-1a2b3c4d", kind, state, ("a.csv",), "1a2b3c4d" * 8, 1, comparison=found)


def test_the_headline_of_an_import():
    said = headline(
        record(
            ImportKind.CLUSTER,
            rows=1_625_000,
            bad={"out_of_range": 340, "blank_user": 1},
            repeated=12,
            older=7,
            fans=1_624_647,
            added=103_210,
            removed=44,
            changed=20_123,
            unchanged=1_501_314,
            arm=arm({(2, 2): 5_000, (2, 3): 9_000, (2, 5): 310, (1, 4): 12, (5, 4): 3_109}),
            clusters=ClusterChanges(before=840_221, after=851_300, split=1_904, merged=77),
        )
    )
    assert said == [
        "12,431 fans change ARM, 310 of them from 2 to 5",
        "9,322 fans get riskier, 3,109 less risky",
        "1,904 clusters split, 77 merge",
        "103,210 fans are new, 44 lose their value",
        "20,123 fans get another value, 1,501,314 keep theirs",
        "7 fans keep a stored value that is newer than the files'",
        "341 rows are bad and left out",
        "12 rows repeat a fan and did not win",
    ]


@pytest.mark.parametrize(
    ("moves", "sentences"),
    [
        ({}, ["no fan changes ARM"]),
        ({(3, 3): 8}, ["no fan changes ARM"]),
        ({(2, 5): 1}, ["1 fan changes ARM, from 2 to 5", "1 fan gets riskier, none less risky"]),
        ({(5, 4): 1}, ["1 fan changes ARM, from 5 to 4", "1 fan gets less risky, none riskier"]),
        ({(5, 4): 6}, ["6 fans change ARM, all of them from 5 to 4", "6 fans get less risky, none riskier"]),
        ({(1, 2): 1, (2, 1): 1}, ["2 fans change ARM, 1 of them from 1 to 2", "1 fan gets riskier, 1 less risky"]),
        # The most frequent of the moves by three levels or more; then by two; then by one.
        ({(1, 2): 99, (1, 5): 2, (5, 2): 3}, ["104 fans change ARM, 3 of them from 5 to 2"]),
        ({(1, 2): 99, (3, 5): 2, (5, 3): 1}, ["102 fans change ARM, 2 of them from 3 to 5"]),
        # As many up as down: what makes fans riskier is named.
        ({(4, 1): 7, (1, 4): 7, (5, 1): 7}, ["21 fans change ARM, 7 of them from 1 to 4"]),
    ],
)
def test_the_sentence_about_arm(moves, sentences):
    said = headline(record(changed=200, arm=arm(moves)))
    assert said[: len(sentences)] == sentences
    assert sum("ARM" in sentence for sentence in said) == 1


@pytest.mark.parametrize(
    ("split", "merged", "sentence"),
    [
        (0, 0, "no cluster splits or merges"),
        (1, 1, "1 cluster splits, 1 merges"),
        (2, 0, "2 clusters split, none merges"),
        (0, 2, "no cluster splits, 2 merge"),
    ],
)
def test_the_sentence_about_clusters(split, merged, sentence):
    changes = ClusterChanges(before=9, after=9, split=split, merged=merged)
    assert sentence in headline(record(ImportKind.CLUSTER, changed=5, clusters=changes))
    assert not [said for said in headline(record(changed=5)) if "cluster" in said]


@pytest.mark.parametrize(
    ("counts", "sentences"),
    [
        (
            {"added": 1, "removed": 1, "changed": 1, "unchanged": 1},
            ["1 fan is new, 1 loses its value", "1 fan gets another value, 1 keeps its value"],
        ),
        ({"added": 2}, ["2 fans are new, none loses its value", "no fan gets another value, none keeps its value"]),
        (
            {"removed": 2, "unchanged": 2},
            ["no fan is new, 2 lose their value", "no fan gets another value, 2 keep theirs"],
        ),
    ],
)
def test_the_sentences_about_fans(counts, sentences):
    assert headline(record(**counts))[1:] == sentences


def test_where_nothing_changes_it_says_so():
    assert headline(record(fans=3, unchanged=3)) == ["nothing changes: all 3 fans have the same value as before"]
    assert headline(record(fans=1, unchanged=1)) == ["nothing changes: the only fan has the same value as before"]
    assert headline(record(fans=3, unchanged=3, bad={"x": 1}))[1:] == ["1 row is bad and left out"]


def test_a_first_version_is_compared_with_nothing():
    assert headline(record(ImportKind.CLUSTER, compared_with=None, added=5, clusters=ClusterChanges(after=1))) == [
        "no fan changes ARM",
        "1 cluster is new",
        "5 fans are new: no version was active before",
    ]


def test_files_without_a_usable_row():
    assert headline(record(fans=0, removed=9, bad={"x": 2})) == [
        "the files have no usable row",
        "2 rows are bad and left out",
    ]


numbers = st.integers(0, 10**7) | st.integers(0, 2)
comparisons = st.builds(
    Comparison,
    compared_with=st.none() | st.just("v"),
    rows=numbers,
    bad=st.dictionaries(st.text(), numbers, max_size=3),
    repeated=numbers,
    older=numbers,
    fans=numbers,
    unknown=numbers,
    added=numbers,
    removed=numbers,
    changed=numbers,
    unchanged=numbers,
    arm=st.tuples(*[st.tuples(*[numbers] * 5)] * 5) | st.just(NOTHING),
    clusters=st.none() | st.builds(ClusterChanges, before=numbers, after=numbers, split=numbers, merged=numbers),
)


@given(comparisons)
def test_sentences_agree_in_number(comparison):
    for sentence in headline(record(**{name: getattr(comparison, name) for name in comparison.__struct_fields__})):
        assert not re.search(r"(?<![\d,])1 (fans|clusters|rows)\b", sentence)
        assert not re.search(r"(?<![\d,])1 (lose|merge|keep|split)\b", sentence)
        assert not re.search(r"(?<![\d,])0 ", sentence)
        assert not sentence.endswith(".")


def test_books_say_what_is_missing():
    balanced = Comparison(rows=10, bad={"x": 1, "y": 2}, repeated=3, fans=4)
    assert books(balanced).unaccounted == 0
    assert books(msgspec.structs.replace(balanced, rows=12)).unaccounted == 2
    assert books(msgspec.structs.replace(balanced, rows=9)).unaccounted == -1


def test_totals_of_the_matrix():
    before, after = arm_totals(Comparison(arm=arm({(1, 5): 7, (1, 2): 1, (4, 5): 2})))
    assert before == (8, 0, 0, 2, 0)
    assert after == (0, 1, 0, 0, 9)


def test_bins_have_names():
    scores = value_bins(record(values_before=(0,) * 10, values_after=(3, *(0,) * 8, 4)))
    assert scores[0] == ("0.0\N{EN DASH}0.1", 0, 3)
    assert scores[9] == ("0.9\N{EN DASH}1.0", 0, 4)
    sizes = value_bins(record(ImportKind.CLUSTER, values_before=(5, 0, 8, *(0,) * 18), values_after=(1, *(0,) * 20)))
    assert sizes == [("1", 5, 1), ("2\N{EN DASH}3", 0, 0), ("4\N{EN DASH}7", 8, 0)]
    largest = value_bins(record(ImportKind.CLUSTER, values_before=(), values_after=(*(0,) * 20, 2_000_000)))
    assert largest[-2:] == [("524,288\N{EN DASH}1,048,575", 0, 0), ("1,048,576+", 0, 2_000_000)]
    assert value_bins(record()) == []


@pytest.mark.parametrize(
    ("state", "refused", "dry_run", "said"),
    [
        (State.STAGING, "too many", False, "Refused"),
        (State.STAGING, "too many", True, "Dry run: would be refused"),
        (State.STAGING, None, True, "Dry run: would become active"),
        (State.STAGING, None, False, "Not active"),
        (State.STAGED, None, False, "Not active yet"),
        (State.ACTIVE, None, False, "Active"),
        (State.REPLACED, None, False, "Replaced by a newer version"),
        (State.ROLLED_BACK, None, False, "Rolled back"),
    ],
)
def test_verdicts(state, refused, dry_run, said):
    assert verdict(record(state=state, changed=1), refused=refused, dry_run=dry_run) == said


def test_files_that_say_what_is_active_already_leave_nothing_to_do():
    assert verdict(record(state=State.STAGING, unchanged=100), refused=None, dry_run=False) == "Nothing to do"


def test_a_version_for_machines():
    version = VersionRecord(
        "20261126T021500Z-1a2b3c4d",
        ImportKind.CLUSTER,
        State.ACTIVE,
        ("a.csv", "b.csv"),
        "1a2b3c4d" * 8,
        1_795_659_300_000,
        replaced="20261125T021500Z-0f0f0f0f",
        comparison=Comparison(
            compared_with="20261125T021500Z-0f0f0f0f",
            rows=11,
            bad={"blank_user": 1},
            fans=10,
            changed=10,
            arm=arm({(2, 5): 3, (2, 2): 4}),
            clusters=ClusterChanges(split=1),
        ),
    )
    plain = json.loads(msgspec.json.encode(record_json(version)))
    assert plain["importVersion"] == "20261126T021500Z-1a2b3c4d"
    assert plain["startedAt"] == "2026-11-26T02:15:00.000Z"
    assert plain["newestRowAt"] is None
    assert plain["headline"] == headline(version)
    assert plain["books"] == {"rows": 11, "bad": 1, "repeated": 0, "fans": 10, "unaccounted": 0}
    assert plain["comparison"]["armChanges"] == 3
    assert plain["comparison"]["totalBad"] == 1
    assert plain["comparison"]["comparedWith"] == "20261125T021500Z-0f0f0f0f"
    assert plain["comparison"]["clusters"]["splitExamples"] == []
    assert {"kind": "cluster", "state": "active"}.items() <= plain.items()
    names = {*plain, *plain["comparison"], *plain["comparison"]["clusters"], *plain["books"]}
    assert not [name for name in names if not re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", name)]


def test_reasons_have_words():
    assert bad_words("blank_user") == "no fan's id"
    assert bad_words("of_a_later_release") == "of_a_later_release"
