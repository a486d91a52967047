"""The activity log is a set, and a profile depends on what happened, not on how it came in."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.activity import Activity, Context
from fan_identity.domain.messages import Cause, ScoringMessage, caused_by
from fan_identity.domain.profile import FEATURES, PROFILE_WINDOW, ActivityFacts, facts_of, profiles_at
from fan_identity.io.sqlite.activity_log import SqliteActivityLog
from fan_identity.io.sqlite.store import SqliteStore

START = 1_718_355_600_000
COUNT = FEATURES.index("activityCount")
FIRST = (-(2**62), "")
LAST = (2**62, "")


@pytest.fixture
def log(tmp_path):
    return SqliteActivityLog(SqliteStore(tmp_path / "a.db"))


def fact(number, *, time_ms=None, kind=3, address=1, failed=0):
    return ActivityFacts(
        START + number * 1_000 if time_ms is None else time_ms, f"a{number}", kind, address, 2, 3, failed
    )


def message(facts, user="u", activity=None):
    body = {"activityId": facts.activity_id, "activityType": "pageView", "occurredAt": facts.time_ms}
    return ScoringMessage(
        global_user_id=user,
        activity_id=facts.activity_id,
        activity_type="pageView",
        occurred_at=facts.time_ms,
        request_id="r",
        worker="w",
        activity=msgspec.Raw(json.dumps(body if activity is None else activity).encode()),
    )


def fetch(log, messages):
    """The profiles of messages, none of which fails here."""
    return [arai.profile for arai in log.fetch(messages)]


def counts(profiles):
    return [profile.values[COUNT] for profile in profiles]


def test_what_was_observed_is_the_history(log):
    facts = [fact(1), fact(2), fact(3)]
    log.observe([("u", one) for one in facts])
    assert log.history("u", FIRST, LAST) == facts
    assert log.history("u", facts[0][:2], facts[1][:2]) == facts[:2]
    assert log.history("other", FIRST, LAST) == []


FACTS = st.builds(
    ActivityFacts,
    st.integers(START, START + 3),
    st.sampled_from(["a", "b", "é"]),
    st.integers(0, 2),
    st.integers(-1, 1),
    st.sampled_from([0, 2**63 - 1, -(2**63)]),
    st.integers(0, 1),
    st.integers(0, 1),
)


@given(st.lists(st.tuples(st.sampled_from(["u", "v", "u "]), FACTS), max_size=20), st.data())
@settings(max_examples=60, deadline=None)
def test_order_and_repetition_do_not_matter_and_of_a_conflict_the_smaller_is_kept(tmp_path_factory, seen, data):
    shuffled = data.draw(st.permutations([*seen, *seen[: len(seen) // 2]]))
    cut = data.draw(st.integers(1, 20))
    store = SqliteStore(tmp_path_factory.mktemp("a") / "a.db")
    log = SqliteActivityLog(store)
    for start in range(0, len(shuffled), cut):
        log.observe(shuffled[start : start + cut])
    for user in ("u", "v", "u "):
        smallest = {}
        for of, one in seen:
            if of == user:
                smallest[one[:2]] = min(one, smallest.get(one[:2], one))
        assert log.history(user, FIRST, LAST) == [smallest[key] for key in sorted(smallest)]
    store.close()


def test_history_begins_a_window_before_the_first_target(log):
    facts = [fact(number) for number in range(PROFILE_WINDOW + 50)]
    log.observe([("u", one) for one in facts])
    last = facts[-1]
    assert log.history("u", last[:2], last[:2]) == facts[-PROFILE_WINDOW:]
    first = facts[-3]
    assert log.history("u", first[:2], last[:2]) == facts[-PROFILE_WINDOW - 2 :]
    assert log.history("u", facts[10][:2], facts[10][:2]) == facts[:11]


def test_activities_of_one_millisecond_are_ordered_by_id(log):
    same = [fact(number, time_ms=START) for number in (1, 2, 3)]
    log.observe([("u", one) for one in reversed(same)])
    assert log.history("u", same[1][:2], same[1][:2]) == same[:2]
    assert counts(fetch(log, [message(one) for one in same])) == [1, 2, 3]


def test_a_profile_sees_nothing_later_and_nothing_of_others(log):
    facts = [fact(number) for number in range(5)]
    log.observe([("u", one) for one in facts] + [("v", fact(number)) for number in range(10, 30)])
    assert counts(fetch(log, [message(facts[2])])) == [3]


def test_profiles_come_in_the_order_asked_for(log):
    facts = [fact(number) for number in range(6)]
    log.observe([("u", one) for one in facts[:4]] + [("v", one) for one in facts[4:]])
    asked = [message(facts[3]), message(facts[5], "v"), message(facts[0]), message(facts[3]), message(facts[4], "v")]
    profiles = fetch(log, asked)
    assert counts(profiles) == [4, 2, 1, 4, 1]
    assert [profile.as_of_ms for profile in profiles] == [one.occurred_at for one in asked]
    assert fetch(log, []) == []


def test_fetched_profiles_are_those_of_the_whole_history(log):
    facts = [fact(number, kind=number % 5, address=number % 7 + 1, failed=number % 2) for number in range(1_100)]
    log.observe([("u", one) for one in facts])
    asked = facts[::97]
    whole = profiles_at(facts, [one[:2] for one in asked])
    assert fetch(log, [message(one) for one in asked]) == [whole[one[:2]] for one in asked]
    assert counts(fetch(log, [message(facts[-1])])) == [PROFILE_WINDOW]


def test_an_activity_the_log_has_not_seen_is_taken_from_its_message(log):
    seen = [fact(1), fact(3)]
    log.observe([("u", one) for one in seen])
    activity = {
        "activityId": "a2",
        "activityType": "login",
        "occurredAt": "not read again: the message has the time",
        "context": {"ipAddress": "10.0.0.9"},
        "attributes": {"outcome": "failure"},
    }
    missing = message(fact(2), activity=activity)
    own = facts_of(
        Activity("a2", "login", 0, context=Context("10.0.0.9"), attributes={"outcome": "failure"}),
        missing.occurred_at,
    )
    expected = profiles_at([seen[0], own, seen[1]], [own[:2], seen[1][:2]])
    profiles = fetch(log, [missing, message(seen[1])])
    assert profiles == [expected[own[:2]], expected[seen[1][:2]]]
    assert log.history("u", FIRST, LAST) == seen, "fetching writes nothing"


def test_a_user_nobody_has_seen_has_a_profile_of_one_activity(log):
    assert counts(fetch(log, [message(fact(1))])) == [1]


def test_a_message_that_came_twice_counts_once(log):
    assert counts(fetch(log, [message(fact(1)), message(fact(1))])) == [1, 1]


def test_long_and_hostile_user_ids_do_not_mix(log):
    users = ["x" * 2_000, "x" * 1_999 + "y", "sha256:" + "0" * 64, "a\0b", "a", "é", "e\u0301"]
    log.observe([(user, fact(number)) for number, user in enumerate(users)])
    assert [log.history(user, FIRST, LAST) for user in users] == [[fact(number)] for number in range(len(users))]


def test_without_an_activity_the_profile_is_as_of_the_users_last_one(log):
    facts = [fact(number) for number in range(5)]
    log.observe([("u", one) for one in facts])
    asked = [
        caused_by(Cause.RESCORE, "u", "rescore:1", facts[2].time_ms, "r"),
        caused_by(Cause.ON_DEMAND, "u", "onDemand:1", facts[4].time_ms + 10**6, "r"),
        caused_by(Cause.ON_DEMAND, "nobody", "onDemand:1", facts[4].time_ms, "r"),
    ]
    first, second, unknown = log.fetch(asked)
    assert counts([first.profile, second.profile]) == [3, 5]
    assert first.profile.as_of_ms == facts[2].time_ms
    assert (unknown.reason, unknown.retryable) == ("no_activity", False)
