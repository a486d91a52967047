"""Batches and dead letters."""

import pickle
import re

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fan_identity.domain.records import Batch, DeadLetter, dead_letter_id

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
PARTS = st.tuples(TEXT, TEXT, TEXT, st.binary(max_size=6))


def letter(name="l1"):
    return DeadLetter(
        dead_letter_id=name,
        worker="w",
        reason="malformed",
        error="why",
        stack="",
        attempts=1,
        request_id="r1",
        activity_id=None,
        source="f",
        position="byte 0",
        payload=b"\xff\x00",
    )


@given(PARTS, PARTS)
def test_only_the_same_failure_has_the_same_name(one, other):
    assert (dead_letter_id(*one) == dead_letter_id(*other)) == (one == other)
    assert re.fullmatch("[0-9a-f]{32}", dead_letter_id(*one))


@given(TEXT, TEXT, TEXT)
def test_text_moved_from_one_part_to_the_next_is_another_failure(one, two, three):
    assume(two)
    assert dead_letter_id(one + two, three, "", b"") != dead_letter_id(one, two + three, "", b"")
    assert dead_letter_id("", "", one + two, three.encode()) != dead_letter_id("", "", one, (two + three).encode())


def test_a_batch_goes_one_step_further_and_loses_nothing():
    batch = Batch("r1", "file.jsonl", [1, 2, 3], (letter("old"),), position="42")
    after = batch.with_items(["1", "2"], [letter("new")])
    assert after == Batch("r1", "file.jsonl", ["1", "2"], (letter("old"), letter("new")), "42")
    assert batch.items == [1, 2, 3]
    assert batch.dead_letters == (letter("old"),)
    assert batch.with_items([]).dead_letters == batch.dead_letters


def test_a_batch_crosses_between_processes():
    batch = Batch("r1", "f", ("x",), (letter(),), "7")
    assert pickle.loads(pickle.dumps(batch)) == batch


def test_a_batch_and_a_letter_do_not_change():
    with pytest.raises(AttributeError):
        Batch("r", "s", []).items = [1]
    with pytest.raises(AttributeError):
        letter().attempts = 2


def test_a_letter_in_json_keeps_its_bytes():
    text = msgspec.json.encode(letter())
    assert b'"deadLetterId":"l1"' in text
    assert msgspec.json.decode(text, type=DeadLetter) == letter()
