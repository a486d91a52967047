"""Who keeps an id, and what is told of it."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.cluster_ids import Lineage, Overlap, assign_ids, lineages, new_cluster_id

FANS = [f"f{number:02}" for number in range(24)]
partitions = st.dictionaries(st.sampled_from(FANS), st.integers(0, 6))


def compared(before, after):
    """Overlaps, smallest members and fans without a cluster now, of two partitions (fan → cluster)."""
    shared = Counter((after[fan], f"old{before[fan]}") for fan in before if fan in after)
    smallest = {new: min(fan for fan in after if after[fan] == new) for new in set(after.values())}
    left = Counter(f"old{before[fan]}" for fan in before if fan not in after)
    return [Overlap(new, old, fans) for (new, old), fans in shared.items()], smallest, left


def run(before, after):
    overlaps, smallest, left = compared(before, after)
    taken = assign_ids(overlaps, smallest)
    ids = {new: taken.get(new) or new_cluster_id("run", first) for new, first in smallest.items()}
    return ids, list(lineages(overlaps, ids, left))


def groups(**members):
    return {fan: number for number, fans in enumerate(members.values()) for fan in fans.split()}


def test_an_unchanged_cluster_keeps_its_id():
    ids, told = run(groups(old="a b c"), groups(new="a b c"))
    assert ids == {0: "old0"}
    assert told == [Lineage("old0", 3, (("old0", 3),), kept=True)]
    assert not told[0].changed


def test_of_a_split_the_greater_part_keeps_the_id():
    ids, told = run(groups(old="a b c d"), groups(small="a", large="b c d"))
    assert ids[1] == "old0"
    assert ids[0] == new_cluster_id("run", "a") != "old0"
    assert told == [Lineage("old0", 4, (("old0", 3), (ids[0], 1)), kept=True, split=True)]


def test_of_a_merge_the_greater_old_cluster_gives_the_id():
    ids, told = run(groups(small="a", large="b c"), groups(both="a b c new"))
    assert ids == {0: "old1"}
    assert told == [
        Lineage("old0", 1, (("old1", 1),), merged=True),
        Lineage("old1", 2, (("old1", 2),), kept=True, merged=True),
    ]


def test_who_loses_its_first_choice_takes_the_next():
    ids, _ = run(groups(large="a b c d e f g", small="x y"), groups(first="a b c d", second="e f g x y"))
    assert ids == {0: "old0", 1: "old1"}


def test_ties_go_to_the_smaller_old_id_and_the_smaller_first_member():
    assert assign_ids([Overlap(7, "b", 2), Overlap(7, "a", 2)], {7: "x"}) == {7: "a"}
    assert assign_ids([Overlap(1, "a", 2), Overlap(2, "a", 2)], {1: "y", 2: "x"}) == {2: "a"}


def test_a_cluster_that_ends_is_told():
    _, told = run(groups(old="a b"), {})
    assert told == [Lineage("old0", 2, left=2)]
    assert told[0].changed


def test_new_ids_are_of_their_run_and_first_member():
    assert new_cluster_id("r", "a") == new_cluster_id("r", "a")
    assert len({new_cluster_id("r", "a"), new_cluster_id("s", "a"), new_cluster_id("r", "b")}) == 3
    assert len(new_cluster_id("r", "a")) == 21


@given(partitions, partitions, st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_order_or_on_how_clusters_are_named_in_the_run(before, after, shuffle: random.Random):
    overlaps, smallest, left = compared(before, after)
    ids, told = run(before, after)
    names = list(range(100, 107))
    shuffle.shuffle(names)
    renamed = {fan: names[cluster] for fan, cluster in sorted(after.items(), key=lambda one: shuffle.random())}
    other, other_told = run(dict(sorted(before.items(), reverse=True)), renamed)
    assert {fan: ids[after[fan]] for fan in after} == {fan: other[renamed[fan]] for fan in after}
    assert told == other_told
    shuffle.shuffle(overlaps)
    assert assign_ids(overlaps, smallest) == assign_ids(sorted(overlaps), smallest)
    assert list(lineages(overlaps, ids, left)) == told


@given(partitions, partitions)
def test_ids_are_given_once_and_lineage_accounts_for_every_fan(before, after):
    overlaps, smallest, _ = compared(before, after)
    ids, told = run(before, after)
    assert len(set(ids.values())) == len(ids)
    for new, old in assign_ids(overlaps, smallest).items():
        assert any((one.new, one.old) == (new, old) for one in overlaps), "an id stays with fans who had it"
    sizes = Counter(f"old{cluster}" for cluster in before.values())
    assert {one.cluster_id: one.fans for one in told} == sizes
    for one in told:
        assert sum(fans for _, fans in one.to) + one.left == one.fans
        assert one.split == (len(one.to) > 1)
        assert one.kept == (one.cluster_id in dict(one.to))
        inside = {fan for fan in before if f"old{before[fan]}" == one.cluster_id}
        assert one.merged == any(
            ids[after[fan]] in dict(one.to) and fan in before and fan not in inside for fan in after
        )


@given(partitions)
def test_nothing_changes_where_nothing_changed(before):
    ids, told = run(before, before)
    assert {fan: ids[before[fan]] for fan in before} == {fan: f"old{cluster}" for fan, cluster in before.items()}
    assert not any(one.changed for one in told)
