"""Keys: whatever an id contains, two ids never share a key, and keys fit where they are used."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fan_identity.domain.activity import MIN_EPOCH_MS
from fan_identity.domain.keys import (
    LATEST_SK,
    arm_cache_key,
    causal_version,
    deduplication_id,
    fifo_group_id,
    loggable_id,
    score_sk,
    user_pk,
    user_token,
)

# Source: SQS API reference, SendMessage, MessageGroupId: alphanumeric and this punctuation.
SQS_ALPHABET = re.compile(r"[a-zA-Z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]+")
MAX_EPOCH_MS = 253_402_300_799_999
TIMES = st.integers(MIN_EPOCH_MS, MAX_EPOCH_MS)

LONG_PIECES = ["0" * 64, "x" * 127, "y" * 1_020, "é" * 510]
ODD_PIECES = ["\0", "\n", "\u202e", " ", "é", "e\u0301", "ﬁ", "\U0001f3ab"]
PIECES = st.sampled_from(
    ["#", "USER#", "user:", "SCORE#", "sha256:", "sha256-", "LATEST", "a", "A", *ODD_PIECES, *LONG_PIECES]
)
PLAIN_IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Ids that look like another id's key are the ones that could collide with it.
IDS = st.one_of(
    PLAIN_IDS,
    st.lists(PIECES, max_size=4).map("".join),
    PLAIN_IDS.map(lambda text: user_token(text * 200 + "é" * 600)),
    PLAIN_IDS.map(lambda text: fifo_group_id(text + "é")),
    PLAIN_IDS.map(user_pk),
)


@given(IDS, IDS)
@example("é", "e\u0301")
@example("a" * 1_024, "a" * 1_025)
@example("a" * 2_000, "a" * 2_001)
@example("sha256:x", user_token("sha256:x"))
@example("b" * 2_000, user_token("b" * 2_000))
@example("c" * 129, fifo_group_id("c" * 129))
@example("sha256-x", fifo_group_id("sha256-x"))
@example("u", "u ")
@example("u", "U")
def test_two_users_never_share_a_key(one, other):
    for key in (user_token, user_pk, arm_cache_key, fifo_group_id):
        assert (key(one) == key(other)) == (one == other), key.__name__


@given(IDS)
@example("é" * 512)
@example("é" * 513)
def test_partition_keys_fit_dynamodb(user):
    assert len(user_pk(user).encode()) <= 1_024 + len("USER#")
    assert user_pk(user).startswith("USER#")
    assert arm_cache_key(user) == "user:" + user_pk(user).removeprefix("USER#")


def test_an_id_stands_in_its_key_as_it_is_up_to_1_024_bytes():
    assert user_pk("fan-1") == "USER#fan-1"
    assert user_token("é" * 512) == "é" * 512
    assert re.fullmatch("sha256:[0-9a-f]{64}", user_token("é" * 512 + "x"))
    assert re.fullmatch("sha256:[0-9a-f]{64}", user_token("sha256:" + "0" * 64))


def test_unicode_forms_are_different_users():
    name = "J\u00fcrgen"
    assert user_pk(unicodedata.normalize("NFC", name)) != user_pk(unicodedata.normalize("NFD", name))


@given(IDS)
@example("a" * 128)
@example("a" * 129)
@example("")
@example("a\n")
def test_group_ids_are_in_the_alphabet_of_sqs(user):
    group = fifo_group_id(user)
    assert SQS_ALPHABET.fullmatch(group)
    assert 1 <= len(group) <= 128


def test_a_group_id_is_the_user_where_sqs_allows():
    allowed = "aZ0!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
    assert fifo_group_id(allowed) == allowed
    assert fifo_group_id("a" * 128) == "a" * 128
    for forbidden in ("", "a b", "é", "a\n", "\x7f", "a" * 129, "sha256-" + "0" * 64):
        assert re.fullmatch("sha256-[0-9a-f]{64}", fifo_group_id(forbidden)), forbidden


@given(TIMES, TIMES, IDS, IDS)
def test_sort_keys_have_one_width_and_the_order_of_time(one_ms, other_ms, one_id, other_id):
    one, other = score_sk(one_ms, one_id), score_sk(other_ms, other_id)
    assert len(one) == len(other) == len("SCORE#2024-06-14T11:00:00.123Z#0123456789abcdef")
    if one_ms != other_ms:
        assert (one < other) == (one_ms < other_ms)
    else:
        assert (one == other) == (one_id == other_id)
    assert one.startswith("SCORE#")
    assert one > LATEST_SK  # a query for SCORE# never meets it


def test_a_sort_key_shows_its_time():
    assert re.fullmatch(r"SCORE#2024-06-14T11:00:00\.123Z#[0-9a-f]{16}", score_sk(1_718_362_800_123, "a1"))


@given(TIMES, IDS, TIMES, IDS)
@example(-1, "b", 0, "a")
@example(0, "a", 0, "a\0")
@example(0, "a", 0, "")
def test_versions_order_by_time_then_activity(one_ms, one_id, other_ms, other_id):
    one, other = causal_version(one_ms, one_id), causal_version(other_ms, other_id)
    assert (one < other) == ((one_ms, one_id) < (other_ms, other_id))
    # A store may compare bytes instead of characters.
    assert (one.encode() < other.encode()) == (one < other)


GENERATIONS = st.just(0) | st.integers(0, 10**12 - 1)


@given(TIMES, IDS, GENERATIONS, TIMES, IDS, GENERATIONS)
@example(0, "a", 7, 0, "a", 10)  # the same cause: the later import
@example(1, "a", 0, 0, "a", 9)  # a newer activity under an older import
@example(0, "a", 1, 0, "a\0", 0)  # an id that would reach into the generation
@example(0, "a", 3, 0, "a\x00000000000003", 0)
@example(0, "a\0", 1, 0, "a\0\U0010ffff", 0)
def test_versions_order_by_time_then_activity_then_imports(
    one_ms, one_id, one_generation, other_ms, other_id, other_generation
):
    one = causal_version(one_ms, one_id, one_generation)
    other = causal_version(other_ms, other_id, other_generation)
    expected = (one_ms, one_id, one_generation) < (other_ms, other_id, other_generation)
    assert (one < other) == (one.encode() < other.encode()) == expected


KNOWN = st.tuples(GENERATIONS, GENERATIONS)


@given(TIMES, IDS, KNOWN, TIMES, IDS, KNOWN)
@example(0, "a", (0, 1), 0, "a", (1, 0))  # imports first
@example(0, "a", (0, 2), 0, "a", (0, 10))
@example(0, "a", (3, 0), 0, "a", (3, 1))
@example(1, "a", (0, 0), 0, "a", (0, 9))  # a newer activity of less knowledge
@example(0, "a", (0, 1), 0, "a\0", (0, 0))
@example(0, "a", (0, 1), 0, "a\x00000000000000000000000001", (0, 0))
def test_versions_order_by_the_results_known_at_last(one_ms, one_id, one_known, other_ms, other_id, other_known):
    one, other = causal_version(one_ms, one_id, *one_known), causal_version(other_ms, other_id, *other_known)
    expected = (one_ms, one_id, *one_known) < (other_ms, other_id, *other_known)
    assert (one < other) == (one.encode() < other.encode()) == expected
    if one_known[1] == 0:
        assert one == causal_version(one_ms, one_id, one_known[0])


def test_before_the_first_import_versions_say_nothing_of_it():
    assert causal_version(0, "a1") == causal_version(0, "a1", 0)
    assert "\0" not in causal_version(0, "a1")


@given(IDS, IDS)
def test_deduplication_ids_tell_activities_and_workers_apart(one, other):
    assert (deduplication_id("w", one) == deduplication_id("w", other)) == (one == other)
    assert deduplication_id("w1", one) != deduplication_id("w2", one)
    assert re.fullmatch("[0-9a-f]{32}", deduplication_id("w", one))


@pytest.mark.parametrize("plain", ["a", "A1", "order_17", "3f2b-44.c:1", "x" * 128])
def test_a_plain_activity_id_is_logged_as_it_is(plain):
    assert loggable_id(plain) == plain


@pytest.mark.parametrize(
    "personal", ["jane@example.org", "", "-x", "a b", "a\n", "\x1b[31m", "é", "x" * 129, "a/b", "10.0.0.1|Firefox"]
)
def test_any_other_activity_id_is_logged_as_a_hash(personal):
    assert re.fullmatch("sha256:[0-9a-f]{16}", loggable_id(personal))


@given(IDS)
def test_what_is_logged_is_one_short_word(activity_id):
    assert re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", loggable_id(activity_id))
