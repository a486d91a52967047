"""Comparisons add up in any order, and refusals name the one threshold that is exceeded."""

import random
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.import_comparison import (
    PartReport,
    added,
    arm_matrix,
    best_examples,
    largest_clusters,
    value_classes,
)
from fan_identity.domain.import_verdict import refusal
from fan_identity.domain.imports import (
    EXAMPLES,
    ArmChange,
    ClusterChanges,
    Comparison,
    ImportKind,
    Pointer,
    State,
    Thresholds,
    VersionRecord,
    fan_item,
    named,
    pointer_item,
    version_name,
)

COUNTS = st.integers(0, 10**9)
NAMES = st.text(min_size=1, max_size=3)
ARM = st.integers(1, 5)
SCORES = st.integers(0, 10_000).map(lambda cents: cents / 100)
ARM_CHANGES = st.builds(ArmChange, NAMES, ARM, ARM, SCORES, SCORES, st.none(), st.just(0.5))
MATRICES = st.dictionaries(st.tuples(ARM, ARM), COUNTS, max_size=5).map(arm_matrix)
CLUSTER_EXAMPLES = st.lists(
    st.tuples(NAMES, st.lists(st.tuples(NAMES, st.integers(1, 99)), min_size=2, max_size=4).map(tuple)), max_size=4
).map(largest_clusters)
CLUSTERS = st.none() | st.builds(ClusterChanges, COUNTS, COUNTS, COUNTS, COUNTS, CLUSTER_EXAMPLES, CLUSTER_EXAMPLES)
TENTHS = st.just(()) | st.lists(COUNTS, min_size=10, max_size=10).map(tuple)
COMPARISONS = st.builds(
    Comparison,
    compared_with=st.just("before"),
    rows=COUNTS,
    bad=st.dictionaries(st.sampled_from(["malformed", "too_old"]), st.integers(1, 99)),
    bad_examples=st.lists(NAMES, max_size=4, unique=True).map(lambda names: tuple(sorted(names))),
    repeated=COUNTS,
    older=COUNTS,
    fans=COUNTS,
    unknown=COUNTS,
    added=COUNTS,
    removed=COUNTS,
    changed=COUNTS,
    unchanged=COUNTS,
    arm=MATRICES,
    examples=st.lists(ARM_CHANGES, max_size=4).map(best_examples),
    values_before=TENTHS,
    values_after=TENTHS,
    clusters=CLUSTERS,
)
PARTS = st.builds(PartReport, COMPARISONS, COUNTS)


@settings(deadline=None, max_examples=40)
@given(PARTS, PARTS, PARTS)
def test_parts_add_up_in_any_order_and_grouping(a: PartReport, b: PartReport, c: PartReport) -> None:
    assert added(a, b) == added(b, a)
    assert added(added(a, b), c) == added(a, added(b, c))
    nothing = PartReport(Comparison())
    assert added(nothing, a) == added(a, nothing) == a


@settings(deadline=None, max_examples=40)
@given(st.lists(ARM_CHANGES, max_size=60), st.randoms(use_true_random=False))
def test_examples_are_the_gravest_and_few_of_each_move(changes: list[ArmChange], rng: random.Random) -> None:
    kept = best_examples(changes)
    assert len(kept) <= 3 * EXAMPLES
    moves = [(change.arm_before, change.arm_after) for change in kept]
    assert all(moves.count(move) <= EXAMPLES for move in moves)
    jumps = [abs(after - before) for before, after in moves]
    assert jumps == sorted(jumps, reverse=True)
    if changes:
        assert jumps[0] == max(abs(change.arm_after - change.arm_before) for change in changes)
    rng.shuffle(changes)
    assert [change.global_user_id for change in best_examples(changes)] == [change.global_user_id for change in kept]


def test_an_example_never_makes_a_record_too_large() -> None:
    long = ArmChange("x" * 257, 1, 5, 90.0, 10.0, None, 1.0)
    assert best_examples([long]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_every_score_is_in_one_tenth(scores: list[float]) -> None:
    counts = value_classes(ImportKind.BOT_OR_NOT, np.array(scores))
    assert len(counts) == 10
    assert sum(counts) == len(scores)
    assert counts[9] == sum(score * 10 >= 9 for score in scores)


@pytest.mark.parametrize(("size", "place"), [(1, 0), (2, 1), (3, 1), (4, 2), (1_023, 9), (1_024, 10), (2**40, 20)])
def test_a_cluster_is_in_the_class_of_its_power_of_two(size: int, place: int) -> None:
    counts = value_classes(ImportKind.CLUSTER, np.array([size]))
    assert counts == tuple(int(number == place) for number in range(21))


LIMITS = Thresholds(bad=0.1, unknown=0.2, removed=0.3, arm_changes=0.4)
AT_THE_LIMIT: dict[str, Any] = {
    "rows": 100, "bad": {"a": 4, "b": 6}, "fans": 90, "unknown": 18, "added": 20, "removed": 30,
    "changed": 20, "unchanged": 50, "arm": arm_matrix({(1, 5): 30, (2, 1): 10, (3, 3): 10}),
}  # fmt: skip


def test_at_every_limit_nothing_is_refused() -> None:
    assert refusal(Comparison(**AT_THE_LIMIT), LIMITS) is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"bad": {"a": 11}}, "11 of 100 rows are bad (11.0%), more than --max-bad 0.1 allows"),
        ({"unknown": 19}, "19 of 90 fans have never been scored (21.1%), more than --max-unknown 0.2 allows"),
        (
            {"removed": 31},
            "31 of 101 fans of the active version are missing (30.7%), more than --max-removed 0.3 allows",
        ),
        (
            {"arm": arm_matrix({(1, 5): 31, (2, 1): 10, (3, 3): 10})},
            "41 of 101 scored fans change ARM (40.6%), more than --max-arm-changes 0.4 allows",
        ),
        ({"fans": 0, "unknown": 0}, "the files have no usable row"),
    ],
)
def test_above_one_limit_it_is_named(changed: dict[str, Any], expected: str) -> None:
    why = refusal(Comparison(**{**AT_THE_LIMIT, **changed}), LIMITS)
    assert why is not None
    assert why.startswith(expected)
    assert "\n" not in why


def test_a_limit_of_one_allows_all_and_one_of_zero_nothing() -> None:
    everything = Comparison(rows=9, bad={"a": 8}, fans=1, unknown=1, added=1, removed=5)
    assert refusal(everything, Thresholds(1, 1, 1, 1)) is None
    assert "--max-bad 0 " in (refusal(everything, Thresholds(0, 1, 1, 1)) or "")
    first = Comparison(rows=5, fans=5, added=5)
    assert refusal(first, Thresholds(0, 0, 0, 0)) is None


@given(st.integers(946_684_800_000, 4_102_444_800_000), st.integers(946_684_800_000, 4_102_444_800_000))
def test_versions_sort_by_time_and_none_begins_another(first: int, second: int) -> None:
    names = [version_name(first, "a" * 64), version_name(second, "b" * 64)]
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}", name) for name in names)
    assert (names[0][:16] < names[1][:16]) == (first // 1_000 < second // 1_000)


def test_a_record_is_read_as_it_was_written_and_its_version_is_no_newer_wins_version() -> None:
    comparison = Comparison(**AT_THE_LIMIT, clusters=ClusterChanges(1, 2, 3, 4, (("a", (("b", 1),)),), ()))
    record = VersionRecord(
        "v", ImportKind.CLUSTER, State.DELETING, ("f",), "d", 1, 2, "u", followed=True, comparison=comparison
    )
    item = msgspec.to_builtins(record)
    assert "version" not in item
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(item)), VersionRecord) == record


@pytest.mark.parametrize("kind", ImportKind)
def test_items_are_those_readers_know(kind: ImportKind) -> None:
    pointer = pointer_item(kind, Pointer("v", 3, 4))
    assert (pointer["PK"], pointer["SK"], pointer["importVersion"]) == (f"IMPORT#{kind.value}", "ACTIVE", "v")
    value = 0.5 if kind is ImportKind.BOT_OR_NOT else "c"
    item = fan_item(kind, "v", "USER#a", value, None if kind is ImportKind.BOT_OR_NOT else 2, 0)
    assert item == {
        "PK": "USER#a",
        "updatedAt": "1970-01-01T00:00:00.000Z",
        "type": kind.value,
        **(
            {"SK": "BON#v", "bonScore": 0.5}
            if kind is ImportKind.BOT_OR_NOT
            else {"SK": "CLUSTER#v", "clusterId": "c", "clusterSize": 2}
        ),
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_gravest_of_many_parts_are_the_gravest_of_all(seed: int) -> None:
    """However the parts are cut and in whatever order they are added, though each keeps only its own best."""
    rng = random.Random(seed)
    changes = [
        ArmChange(f"fan-{number}", rng.choice((1, 1, 1, 2)), rng.randint(1, 5), 50.0, rng.random(), None, None)
        for number in range(400)
    ]
    clusters = [(f"c{number}", (("a", rng.randint(1, 30)), ("b", 1))) for number in range(60)]
    parts = [
        PartReport(
            Comparison(
                examples=best_examples(changes[start : start + 40]),
                clusters=ClusterChanges(split_examples=largest_clusters(clusters[start // 8 : start // 8 + 5])),
            )
        )
        for start in range(0, 400, 40)
    ]
    while len(parts) > 1:
        first, second = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        parts.append(added(first, second))
    assert parts[0].comparison.examples == best_examples(changes)
    assert parts[0].comparison.clusters == ClusterChanges(split_examples=largest_clusters(clusters[:50]))


def test_a_record_names_few_of_many_files() -> None:
    assert named(["a", "b"]) == ("a", "b")
    assert named([f"part-{number}" for number in range(5_000)])[-2:] == ("part-49", "and 4,950 more")
