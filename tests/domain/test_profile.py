"""Profiles: examples, and the sweep against a naive recomputation of every window."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.activity import ACTIVITY_TYPES, TYPE_INDEX, Activity, Context
from fan_identity.domain.profile import FEATURES, PROFILE_WINDOW, ActivityFacts, Profile, facts_of, profiles_at

START = 1_718_355_600_000  # 2024-06-14T09:00Z
ASSET = TYPE_INDEX["assetView"]
PAGE = TYPE_INDEX["pageView"]
SEARCH = TYPE_INDEX["search"]


def fact(time_ms: int, number: int, kind: int = PAGE, **other: int) -> ActivityFacts:
    return ActivityFacts(
        time_ms,
        f"a{number:05d}",
        kind,
        other.get("address", 0),
        other.get("device", 0),
        other.get("event", 0),
        other.get("failed", 0),
    )


def last_profile(history: list[ActivityFacts]) -> dict[str, float | None]:
    key = history[-1][:2]
    return dict(zip(FEATURES, profiles_at(history, [key])[key].values, strict=True))


def naive_profile(history: list[ActivityFacts], position: int, window: int) -> Profile:
    """The definition, straight from the model card: everything computed anew from the window's activities."""
    seen = history[max(0, position + 1 - window) : position + 1]
    now = seen[-1].time_ms
    decisions = [f for f in seen if f.type_index != ASSET]
    gaps = [b.time_ms - a.time_ms for a, b in pairwise(decisions)]
    rhythm = [gap for gap in gaps if gap >= 2_000]

    def cut(part: int, whole: int) -> float:
        return part * 1_000 // whole / 1_000

    def quarter_octave(gap: int) -> str:
        return f"{gap:b}"[:3] + "x" * (len(f"{gap:b}") - 3)

    def type_share(*names: str) -> float | None:
        matching = sum(ACTIVITY_TYPES[f.type_index] in names for f in seen)
        return cut(matching, len(seen)) if len(seen) >= 3 else None

    def gap_share(matching: int) -> float | None:
        return cut(matching, len(gaps)) if len(gaps) >= 2 else None

    alike = sum(count * (count - 1) for count in Counter(map(quarter_octave, rhythm)).values())
    active = max(1_000, sum(min(gap, 1_800_000) for gap in gaps))
    values = {
        "activityCount": len(seen),
        "activitiesPerMinute": cut(len(gaps) * 60_000, active) if len(gaps) >= 2 else None,
        "lastMinuteCount": sum(now - 60_000 < f.time_ms for f in decisions),
        "lastTenMinutesCount": sum(now - 600_000 < f.time_ms for f in decisions),
        "gapRegularity": cut(alike, len(rhythm) * (len(rhythm) - 1)) if len(rhythm) >= 5 else None,
        "fastGapShare": gap_share(sum(gap < 1_000 for gap in gaps)),
        "sessionBreakShare": gap_share(sum(gap > 1_800_000 for gap in gaps)),
        "distinctAddresses": len({f.address for f in seen} - {0}) or None,
        "distinctDevices": len({f.device for f in seen} - {0}) or None,
        "distinctEvents": len({f.event for f in seen} - {0}) or None,
        "failureShare": cut(sum(f.failed for f in seen), len(seen)) if len(seen) >= 3 else None,
        "loginShare": type_share("login"),
        "searchShare": type_share("search"),
        "purchaseShare": type_share("addToCart", "checkout", "purchase"),
        "assetShare": type_share("assetView"),
        "typeVariety": len({f.type_index for f in seen}),
        "distinctHoursOfDay": len({f.time_ms // 3_600_000 % 24 for f in seen}),
        "nightShare": cut(sum(f.time_ms // 3_600_000 % 24 < 6 for f in seen), len(seen)) if len(seen) >= 3 else None,
        "sameTypeRepeatShare": gap_share(sum(a.type_index == b.type_index for a, b in pairwise(decisions))),
    }
    return Profile(now, tuple(values[name] for name in FEATURES))


GAPS = st.one_of(
    st.sampled_from([0, 999, 1_000, 1_999, 2_000, 60_000, 600_000, 1_800_000, 1_800_001]),
    st.integers(0, 5),
    st.integers(900, 3_000),
    st.integers(0, 70_000),
    st.integers(1_799_000, 1_801_000),
    st.integers(0, 90_000_000),
)
SMALL_HASH = st.integers(-2, 2)
STEPS = st.lists(
    st.tuples(
        GAPS,
        st.one_of(st.just(ASSET), st.integers(0, len(ACTIVITY_TYPES) - 1)),
        SMALL_HASH,
        SMALL_HASH,
        SMALL_HASH,
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=60,
)


def histories(steps: list[tuple[int, int, int, int, int, int]]) -> list[ActivityFacts]:
    time_ms = START
    history: list[ActivityFacts] = []
    for number, (gap, kind, address, device, event, failed) in enumerate(steps):
        time_ms += gap
        history.append(ActivityFacts(time_ms, f"a{number:05d}", kind, address, device, event, failed))
    return history


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 20))
def test_the_sweep_equals_a_naive_recomputation(steps, window):
    history = histories(steps)
    profiles = profiles_at(history, [facts[:2] for facts in history], window=window)
    assert profiles == {facts[:2]: naive_profile(history, at, window) for at, facts in enumerate(history)}


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 12), st.data())
def test_the_result_does_not_depend_on_where_the_sweep_began(steps, window, data):
    history = histories(steps)
    targets = data.draw(st.sets(st.integers(0, len(history) - 1), min_size=1))
    latest_start = max(0, min(targets) + 1 - window)
    start = data.draw(st.integers(0, latest_start))
    keys = [history[at][:2] for at in targets]
    whole = profiles_at(history, keys, window=window)
    part = profiles_at(history[start:], keys, window=window)
    assert repr(sorted(part.items())) == repr(sorted(whole.items()))


def test_a_long_history_slides_through_the_real_window():
    rng = random.Random(3)
    steps = [
        (
            rng.choice([0, 300, 2_500, 60_000, 4_000_000]),
            rng.randrange(len(ACTIVITY_TYPES)),
            rng.randrange(40),
            rng.randrange(4),
            rng.randrange(9),
            rng.randrange(2),
        )
        for _ in range(2_600)
    ]
    history = histories(steps)
    at = [0, 998, 999, 1_000, 1_001, 1_999, 2_000, 2_001, 2_599]
    profiles = profiles_at(history, [history[position][:2] for position in at])
    for position in at:
        assert profiles[history[position][:2]] == naive_profile(history, position, PROFILE_WINDOW)


def test_one_activity_says_little():
    known = {name: value for name, value in last_profile([fact(START, 1, address=5)]).items() if value is not None}
    assert known == {
        "activityCount": 1,
        "lastMinuteCount": 1,
        "lastTenMinutesCount": 1,
        "distinctAddresses": 1,
        "typeVariety": 1,
        "distinctHoursOfDay": 1,
    }


def test_a_metronome_is_regular_and_a_person_is_not():
    metronome = [fact(START + 5_000 * step, step, SEARCH) for step in range(20)]
    person = [fact(START + int(3_000 * 1.7**step), step) for step in range(20)]
    assert last_profile(metronome)["gapRegularity"] == 1
    assert last_profile(metronome)["activitiesPerMinute"] == 12
    assert last_profile(metronome)["sameTypeRepeatShare"] == 1
    regularity = last_profile(person)["gapRegularity"]
    assert regularity is not None and regularity < 0.1


def test_asset_loads_count_as_assets_and_not_as_decisions():
    history = [fact(START, 0)]
    history += [fact(START + 10 * step, step, ASSET) for step in range(1, 20)]
    history += [fact(START + 8_000, 20), fact(START + 19_000, 21)]
    profile = last_profile(history)
    assert profile["activityCount"] == 22
    assert profile["lastMinuteCount"] == 3
    assert profile["fastGapShare"] == 0
    assert profile["assetShare"] == 0.863


def test_the_last_minute_excludes_the_activity_exactly_a_minute_ago():
    profile = last_profile([fact(START, 0), fact(START + 1, 1), fact(START + 60_000, 2)])
    assert profile["lastMinuteCount"] == 2
    assert profile["lastTenMinutesCount"] == 3


def test_activities_of_one_millisecond_each_have_their_own_profile():
    history = [fact(START, 0), fact(START, 1), fact(START, 2)]
    profiles = profiles_at(history, [facts[:2] for facts in history])
    assert [profiles[facts[:2]].values[0] for facts in history] == [1, 2, 3]


def test_a_target_outside_the_history_is_an_error():
    with pytest.raises(ValueError, match="1 of 2 targets"):
        profiles_at([fact(START, 0)], [(START, "a00000"), (START, "unheard-of")])
    assert profiles_at([], []) == {}


def test_facts_hide_who_and_what_and_ignore_the_user_agent():
    def activity(agent: str | None, address: str | None = "10.0.0.1") -> Activity:
        context = Context(ip_address=address, device_id="d", user_agent=agent)
        return Activity("a", "login", START, "u", event_id="e", context=context, attributes={"outcome": "failure"})

    facts = facts_of(activity("one"), START)
    assert facts == facts_of(activity("two"), START)
    assert facts[:3] == (START, "a", TYPE_INDEX["login"])
    assert facts.failed == 1
    assert len({facts.address, facts.device, facts.event, 0}) == 4
    assert all(-(2**63) <= value < 2**63 for value in facts[3:6])
    assert facts_of(activity("one", ""), START).address == 0
    assert facts_of(Activity("a", "login", START), START)[3:] == (0, 0, 0, 0)


def test_hashes_are_stable_across_processes_and_versions():
    facts = facts_of(Activity("a", "login", START, event_id="EVT-1"), START)
    assert facts.event == HASH_OF_EVT_1


HASH_OF_EVT_1 = int.from_bytes(bytes.fromhex("8fa850a44d71c616"), "big", signed=True)


@pytest.mark.parametrize("gap", [999, 1_000, 1_999, 2_000, 1_800_000, 1_800_001])
def test_a_gap_at_a_boundary_leaves_the_window_as_it_came(gap):
    history = [fact(START, 0), fact(START + gap, 1)]
    history += [fact(history[1].time_ms + 5_000 * step, 1 + step) for step in range(1, 5)]
    profiles = profiles_at(history, [facts[:2] for facts in history], window=4)
    assert profiles == {facts[:2]: naive_profile(history, at, 4) for at, facts in enumerate(history)}
