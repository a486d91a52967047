"""Traceparents come from anybody: what is one is read, whatever else comes is ignored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.traceparent import TraceParent, parse_traceparent, sampled_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PLACES = st.builds(
    TraceParent,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
)


@given(PLACES)
def test_what_is_written_is_read(place):
    assert parse_traceparent(str(place)) == place
    assert parse_traceparent(str(place).encode()) == place
    assert len(str(place)) == 55


@given(
    st.text() | st.binary() | st.integers() | st.none() | st.lists(st.text()) | st.dictionaries(st.text(), st.text())
)
def test_anything_else_is_ignored_and_never_an_error(value):
    found = parse_traceparent(value)
    assert found is None or str(found)[2:52] == (value if isinstance(value, str) else value.decode())[2:52]


@given(PLACES, st.integers(0, 54), st.characters(exclude_characters="0123456789abcdef-"))
def test_one_wrong_character_makes_it_none(place, at, character):
    text = str(place)
    assert parse_traceparent(text[:at] + character + text[at + 1 :]) is None


@pytest.mark.parametrize(
    "text",
    [
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01 ",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-1",
        f"01-{TRACE}-{SPAN}-01x",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 10_000,
        f"00-{TRACE}-{SPAN}-01".replace("0", "\u0660"),
        "00-" + "a" * 10_000,
    ],
)
def test_forms_that_w3c_forbids(text):
    assert parse_traceparent(text) is None


def test_a_version_to_come_is_read_as_far_as_it_is_known():
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-03-more") == TraceParent(int(TRACE, 16), int(SPAN, 16), sampled=True)


@given(PLACES)
def test_only_a_recorded_trace_is_kept(place):
    assert sampled_traceparent(str(place)) == (str(place) if place.sampled else None)
