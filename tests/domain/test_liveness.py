"""What is told of outages: once each, whatever flaps, fails to be sent or is told by whom."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.liveness import (
    CLAIM_MS,
    MOST_ROUNDS_TO_CLEAR,
    RELAPSE_MS,
    RESOLVE,
    ROUNDS_TO_CLEAR,
    TRIGGER,
    Outage,
    Probed,
    after_probe,
    claimed,
    given_back,
    is_free,
    newest,
    notice_of,
    severity_of,
    summary_of,
    told,
)

ROUND_MS = 15_000
NOW = 1_795_000_000_000


def probed(up: bool) -> Probed:
    problem = "" if up else "--table: dynamodb://fans is out of reach (ConnectTimeoutError)"
    return Probed("table", "dynamodb://fans", up, 0.01, problem, ("table", "dead_letters"))


def run(rounds: str, *, taken: str | None = None, start: int = NOW) -> tuple[list[tuple[int, str]], Outage | None]:
    """What is told, and in which round: ``+`` is up, ``-`` down; ``taken`` says whether the webhook works."""
    known: Outage | None = None
    said: list[tuple[int, str]] = []
    for number, mark in enumerate(rounds):
        now = start + number * ROUND_MS
        known = after_probe(known, probed(mark == "+"), now) or known
        while known is not None and known.owed and (taken is None or taken[number] == "+"):
            mine = claimed(known, "me", now)
            said.append((number, notice_of(mine, "d")["event_action"]))
            known = told(mine)
    return said, known


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ("++++", []),
        ("++-", [(2, TRIGGER)]),
        ("++------", [(2, TRIGGER)]),
        ("--++", [(0, TRIGGER), (3, RESOLVE)]),
        ("-+-+-+-+-+-+", [(0, TRIGGER)]),
        ("-++-++", [(0, TRIGGER), (2, RESOLVE), (3, TRIGGER)]),
        ("-++-++++", [(0, TRIGGER), (2, RESOLVE), (3, TRIGGER), (7, RESOLVE)]),
        ("-++-+++-++++", [(0, TRIGGER), (2, RESOLVE), (3, TRIGGER), (11, RESOLVE)]),
    ],
)
def test_an_outage_is_told_in_its_first_round_and_cleared_once_it_is_over_for_some(rounds, expected):
    assert run(rounds)[0] == expected


def test_a_part_that_flaps_for_hours_is_told_of_a_handful_of_times():
    said, _ = run("-++" * 400)
    assert len(said) <= 4
    slow, _ = run(("-" + "+" * 10) * 100)
    assert len(slow) <= 2 * 5


def test_an_outage_long_after_the_last_one_is_no_relapse():
    _, after = run("-++")
    assert after is not None
    soon = after_probe(after, probed(False), after.ended_at + RELAPSE_MS - 1)
    late = after_probe(after, probed(False), after.ended_at + RELAPSE_MS)
    assert soon is not None and late is not None
    assert (soon.relapses, late.relapses) == (1, 0)


@given(st.text("+-", max_size=120), st.data())
def test_notices_alternate_and_end_with_what_is_so(rounds, data):
    taken = data.draw(st.text("+-", min_size=len(rounds), max_size=len(rounds)))
    calm = MOST_ROUNDS_TO_CLEAR
    last = data.draw(st.sampled_from("+-"))
    said, known = run(rounds + last * calm, taken=taken + "+" * calm)
    actions = [action for _, action in said]
    assert actions == [TRIGGER, RESOLVE] * (len(actions) // 2) + [TRIGGER] * (len(actions) % 2)
    assert (len(actions) % 2 == 1) == (last == "-")
    assert known is None or not known.owed
    # One that was down for a whole round while it was clear is told, sooner or later.
    assert bool(actions) == ("-" in rounds + last)


@given(st.text("+-", max_size=60))
def test_every_write_has_a_greater_revision(rounds):
    known: Outage | None = None
    for number, mark in enumerate(rounds):
        after = after_probe(known, probed(mark == "+"), NOW + number * ROUND_MS)
        if after is not None:
            assert after.revision == (0 if known is None else known.revision) + 1
            known = after


def test_what_one_process_is_telling_no_other_tells_until_it_is_gone_or_late():
    (outage,) = [after_probe(None, probed(False), NOW)]
    assert outage is not None
    assert is_free(outage, NOW, claimer_is_gone=False)
    mine = claimed(outage, "me", NOW)
    assert not is_free(mine, NOW + CLAIM_MS - 1, claimer_is_gone=False)
    assert is_free(mine, NOW, claimer_is_gone=True)
    assert is_free(mine, NOW + CLAIM_MS, claimer_is_gone=False)
    assert is_free(given_back(mine), NOW, claimer_is_gone=False)
    assert not is_free(told(mine), NOW + CLAIM_MS, claimer_is_gone=True)


def test_a_part_that_goes_down_while_its_recovery_is_being_told_is_told_anew():
    _, down = run("--+")
    assert down is not None
    over = after_probe(down, probed(True), NOW)
    assert over is not None and over.owed == (RESOLVE,)
    again = after_probe(over, probed(False), NOW)
    assert again is not None and again.owed == () and again.began_at == down.began_at
    in_flight = after_probe(claimed(over, "me", NOW), probed(False), NOW)
    assert in_flight is not None and in_flight.owed == (RESOLVE, TRIGGER)


def test_a_notice_says_what_where_and_since_when():
    _, known = run("--+", taken="---")
    assert known is not None
    begun = notice_of(known, "1a2b3c4d")
    assert begun["text"] == (
        "fan-identity: table (dynamodb://fans) is DOWN since 2026-11-18T11:06:40.000Z: "
        "--table: dynamodb://fans is out of reach (ConnectTimeoutError)"
    )
    assert (begun["event_action"], begun["severity"], begun["ended_at"]) == (TRIGGER, "critical", None)
    over = after_probe(known, probed(True), NOW + 3 * ROUND_MS)
    assert over is not None
    ended = notice_of(told(claimed(over, "me", NOW)), "1a2b3c4d")
    assert ended["text"] == (
        "fan-identity: table (dynamodb://fans) answers again; it was down for 45 s, since 2026-11-18T11:06:40.000Z"
    )
    assert (ended["event_action"], ended["lasted_seconds"]) == (RESOLVE, 45)
    assert begun["dedup_key"] == ended["dedup_key"] == "fan-identity/1a2b3c4d/table"
    assert ended["settings"] == ["table", "dead_letters"]


def test_what_stops_scores_is_critical_and_what_makes_an_answer_poorer_a_warning():
    assert {severity_of(part) for part in ("table", "queue", "source", "cache", "model", "accounts")} == {"critical"}
    assert {severity_of(part) for part in ("flags", "staging_table", "identity", "lnaa", "operations")} == {"warning"}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=20))
def test_of_several_places_the_last_write_counts(entries):
    places = [{part: Outage(part, revision=revision)} for part, revision in entries]
    merged = newest(*places)
    for part, outage in merged.items():
        assert outage.revision == max(revision for name, revision in entries if name == part)
    assert merged.keys() == {part for part, _ in entries}


def test_a_round_adds_up():
    summary = summary_of([probed(True), probed(False)])
    assert (summary["up"], summary["down"]) == (1, 1)
    assert "problem" not in summary["parts"][0] and "out of reach" in summary["parts"][1]["problem"]
    assert ROUNDS_TO_CLEAR == 2


def test_an_outage_survives_the_way_through_a_table():
    _, known = run("--+")
    assert known is not None
    assert msgspec.convert(msgspec.to_builtins(known), Outage) == known
