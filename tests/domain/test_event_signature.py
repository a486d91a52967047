"""Signatures and times of events: what is forged or not of our time is told, whatever is in it."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.event_signature import check_signature, signature_of, signed_text
from fan_identity.domain.events import HORIZON_MS, MOST_FUTURE_MS, RefusedEventError, check_event_time

NOW = 1_795_780_800_000
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
FIELDS = st.tuples(TEXTS, TEXTS, TEXTS, TEXTS | st.integers())
RESULT = ("v-1", "fan-1", "PASSED", NOW)


def forged(signature, fields, secrets):
    with pytest.raises(RefusedEventError) as caught:
        check_signature(signature, fields, secrets)
    assert caught.value.reason == "forged"
    return str(caught.value)


def test_the_text_and_the_signature_are_those_the_documentation_shows():
    assert signed_text(RESULT) == b"v1\n3:v-1\n5:fan-1\n6:PASSED\n13:1795780800000\n"
    by_hand = hmac.new(b"s3cret", b"v1\n3:v-1\n5:fan-1\n6:PASSED\n13:1795780800000\n", hashlib.sha256).hexdigest()
    assert signature_of(RESULT, "s3cret") == f"v1={by_hand}"
    check_signature(f"v1={by_hand}", RESULT, ["s3cret"])


@given(FIELDS, FIELDS)
def test_two_results_never_have_one_text(one, other):
    as_sent = [tuple(map(str, fields)) for fields in (one, other)]
    assert (signed_text(one) == signed_text(other)) == (as_sent[0] == as_sent[1])


@given(FIELDS, st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4), st.data())
def test_any_of_the_secrets_will_do_and_no_other(fields, secrets, data):
    check_signature(signature_of(fields, data.draw(st.sampled_from(secrets))), fields, secrets)
    forged(signature_of(fields, "\0another" * 3), fields, secrets)


@pytest.mark.parametrize("number", range(4))
def test_a_signature_of_other_fields_is_forged(number):
    other = [*RESULT]
    other[number] = f"{other[number]}x"
    forged(signature_of(other, "s"), RESULT, ["s"])
    moved = ("v-1fan", "-1", "PASSED", NOW)
    forged(signature_of(moved, "s"), RESULT, ["s"])


@pytest.mark.parametrize(
    "signature",
    [None, "", "v1=", "v1=" + "0" * 64, "v2=" + "0" * 64, "v1=é", "\0", "x" * 100_000, "\uff561=" + "0" * 64],
)
def test_what_is_no_signature_is_forged(signature):
    forged(signature, RESULT, ["s"])


def test_a_signature_is_compared_whole():
    right = signature_of(RESULT, "s")
    for wrong in (right[:-1], right + "0", right.upper(), right.removeprefix("v1=")):
        forged(wrong, RESULT, ["s"])


@pytest.mark.parametrize("time", [None, 1.5, float(NOW)])
def test_a_result_without_a_time_of_its_own_cannot_be_signed(time):
    """Else the one who sends it on could name another one."""
    fields = ("v-1", "fan-1", "PASSED", time)
    assert "occurredAt" in forged(signature_of((*fields[:3], str(time)), "s"), fields, ["s"])


@pytest.mark.parametrize("time_ms", [NOW, NOW + MOST_FUTURE_MS, NOW - HORIZON_MS])
def test_a_time_of_ours_is_taken(time_ms):
    check_event_time(time_ms, NOW)


@pytest.mark.parametrize("time_ms", [NOW + MOST_FUTURE_MS + 1, NOW - HORIZON_MS - 1, 0, -(10**13), 10**14])
def test_a_time_that_is_not_of_ours_is_refused(time_ms):
    with pytest.raises(RefusedEventError) as caught:
        check_event_time(time_ms, NOW)
    assert caught.value.reason == "out_of_time"
