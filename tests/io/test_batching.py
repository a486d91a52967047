"""Cutting items into requests."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fan_identity.io.batching import batches

SIZES = st.lists(st.integers(0, 120), max_size=60)


@given(SIZES, st.integers(1, 10), st.integers(1, 300))
def test_batches_keep_every_item_in_order_within_both_limits(sizes, most, most_bytes):
    items = list(enumerate(sizes))
    cut = list(batches(items, lambda item: item[1], most, most_bytes))
    assert [item for batch in cut for item in batch] == items
    for batch in cut:
        assert 1 <= len(batch) <= most
        assert sum(size for _, size in batch) <= most_bytes or len(batch) == 1


@given(SIZES, st.integers(1, 10), st.integers(1, 300))
def test_a_batch_ends_only_where_the_next_item_does_not_fit(sizes, most, most_bytes):
    cut = list(batches(sizes, lambda size: size, most, most_bytes))
    for batch, following in itertools.pairwise(cut):
        assert len(batch) == most or sum(batch) + following[0] > most_bytes


def test_no_more_than_one_item_is_taken_beyond_a_batch():
    items = iter(range(10))
    assert next(batches(items, lambda _: 1, 3, 100)) == [0, 1, 2]
    assert next(items) == 4


def test_nothing_gives_no_batch():
    assert list(batches([], len, 10, 10)) == []
