"""The simulator: reproducible, in the wire format, and as dirty as it says."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from fan_identity.batch.personas import BOT_PERSONAS, FAN_PERSONAS, Sale, Track
from fan_identity.batch.simulate import INTERNAL_ACCOUNTS, SaleSettings, simulate, write_simulation
from fan_identity.domain.activity import TYPE_INDEX, MalformedRecordError, decode_activity
from fan_identity.domain.scorable import Rejection, ScorableRules, rejection

SMALL = SaleSettings(fans=400, bots=60, seed=11, malformed=0.02, strays=0.01)


@pytest.fixture(scope="module")
def small():
    return simulate(SMALL)


def sorted_out(simulation, settings):
    """Counts lines by what the product makes of them, and collects the scorable activities."""
    rules = ScorableRules(settings.end_ms, 30 * 86_400_000, frozenset(INTERNAL_ACCOUNTS))
    outcomes = Counter()
    activities = []
    for line in simulation.lines:
        try:
            activity = decode_activity(line)
            reason = rejection(activity, activity.time_ms, rules)
        except MalformedRecordError:
            outcomes["malformed"] += 1
            continue
        outcomes[reason] += 1
        if reason is None:
            activities.append(activity)
    return outcomes, activities


def test_a_seed_gives_the_same_bytes_and_another_seed_others(small, tmp_path):
    assert simulate(SMALL) == small
    assert simulate(replace(SMALL, seed=12)).lines != small.lines
    first = write_simulation(SMALL, tmp_path / "a.jsonl")
    second = write_simulation(SMALL, tmp_path / "b.jsonl")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.labels_path.read_bytes() == second.labels_path.read_bytes()
    assert first.bytes_written == first.path.stat().st_size


def test_every_line_is_accounted_for(small):
    outcomes, activities = sorted_out(small, SMALL)
    counts = small.counts
    assert sum(counts.values()) == len(small.lines)
    assert outcomes["malformed"] == counts["malformed"] > 0
    assert outcomes[Rejection.UNKNOWN_TYPE] == counts["unknown_type"] > 0
    assert outcomes[Rejection.BLANK_USER] == counts["blank_user"] > 0
    assert outcomes[Rejection.TOO_OLD] == counts["stale"] > 0
    assert outcomes[Rejection.IN_FUTURE] == counts["future"] > 0
    assert outcomes[Rejection.INTERNAL_ACCOUNT] == counts["internal"] > 0
    assert outcomes[None] == counts["activity"] + counts["duplicate"]
    assert len({activity.activity_id for activity in activities}) == counts["activity"]


def test_duplicates_are_exact_and_about_as_many_as_asked(small):
    repeated = [line for line, count in Counter(small.lines).items() if count > 1 and b'"activityId":"' in line]
    real = [line for line in repeated if line.endswith(b"}") and b'"nan"' not in line]
    assert len(real) >= small.counts["duplicate"] > 0
    assert small.counts["duplicate"] / small.counts["activity"] == pytest.approx(SMALL.duplicates, rel=0.5)


def test_lines_are_in_order_of_arrival_with_some_late(small):
    _, activities = sorted_out(small, SMALL)
    newest = 0
    late = 0
    for activity in activities:
        newest = max(newest, activity.time_ms)
        late += activity.time_ms < newest - 30_000
    assert 0.01 < late / len(activities) < 0.1


def test_everybody_is_labelled_and_everything_is_covered(small, tmp_path):
    _, activities = sorted_out(small, SMALL)
    assert {activity.global_user_id for activity in activities} <= set(small.kinds)
    assert Counter(small.kinds.values())["fan"] == SMALL.fans
    assert len(small.kinds) == SMALL.fans + SMALL.bots
    assert {activity.activity_type for activity in activities} >= set(TYPE_INDEX) - {"demandSignal", "passwordReset"}
    summary = write_simulation(SMALL, tmp_path / "sale.jsonl")
    assert summary.labels_path == tmp_path / "sale.labels.jsonl"
    labels = [json.loads(line) for line in summary.labels_path.read_text().splitlines()]
    assert {label["globalUserId"]: label["kind"] for label in labels} == small.kinds
    assert summary.users == Counter(small.kinds.values())


def test_addresses_are_private_and_user_ids_do_not_tell_bots_from_fans(small):
    _, activities = sorted_out(small, SMALL)
    addresses = {activity.context.ip_address for activity in activities}
    assert all(address.startswith(("10.", "100.")) for address in addresses)
    carrier = [address for address in addresses if address.startswith("100.")]
    assert all(64 <= int(address.split(".")[1]) < 128 for address in carrier)
    fans = sorted(user for user, kind in small.kinds.items() if kind == "fan")
    bots = sorted(user for user, kind in small.kinds.items() if kind != "fan")
    assert {len(user) for user in fans} == {len(user) for user in bots}
    assert fans[0] < bots[len(bots) // 2] < fans[-1]


def test_no_noise_where_none_is_asked_for():
    clean = SaleSettings(fans=30, bots=5, seed=1, duplicates=0, late=0, malformed=0, unknown_types=0, strays=0)
    assert set(simulate(clean).counts) == {"activity", "internal"}


def test_a_mix_leaves_out_what_it_does_not_name():
    mixed = simulate(SaleSettings(fans=20, bots=20, seed=1, fan_mix={"night-owl": 1}, bot_mix={"prober": 1}))
    assert set(mixed.personas.values()) == {"night-owl", "prober"}


@pytest.mark.parametrize("persona", [*FAN_PERSONAS, *BOT_PERSONAS])
def test_a_persona_acts_within_the_sale_and_in_known_types(persona):
    sale = Sale(0, 3_600_000, 86_400_000, "E1", ("E1", "E2"))
    act = (FAN_PERSONAS | BOT_PERSONAS)[persona][1]
    for seed in range(50):
        track = Track(random.Random(seed), sale, ["10.0.0.1", "10.0.0.2"], ["d1", None], 2)
        act(track)
        assert track.actions
        assert all(action.kind in TYPE_INDEX for action in track.actions)
        assert all(action.time_ms >= sale.start_ms for action in track.actions)
