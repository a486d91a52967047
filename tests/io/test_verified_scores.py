"""Identity checks in scores: the one as of the activity counts, in the very next score, with few reads."""

import json
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fan_identity.domain.verification as verification_module
from fan_identity.domain.arai import Arai
from fan_identity.domain.import_effects import ImportedValues, rescored
from fan_identity.domain.keys import LATEST_SK, arm_cache_key, user_pk
from fan_identity.domain.messages import Cause, caused_by
from fan_identity.domain.profile import FEATURES, Profile
from fan_identity.domain.records import Batch
from fan_identity.domain.scorecard import ModelScore, Reason
from fan_identity.domain.scores import version_of
from fan_identity.domain.verification import (
    MOST_KEPT,
    VERIFIED_SK,
    Status,
    Verification,
    deciding,
    verification_item,
)
from fan_identity.io.fan_verifications import FanVerifications, add_verifications, write_newest
from fan_identity.io.persisting import persist
from fan_identity.io.ports import ReceivedMessage, ScoringRequest
from fan_identity.io.scoring_model import request_body
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteArmCache, SqliteTable
from fan_identity.io.steps import Profiled, score_users

NOON = 1_795_780_800_000
DAY = 24 * 60 * 60_000
NOBODY_KNOWS = Arai(Profile(NOON, (None,) * len(FEATURES)))


class Counted:
    """A table whose reads are counted."""

    def __init__(self, table):
        self._table = table
        self.reads = Counter()

    def __getattr__(self, name):
        self.reads[name] += 1
        return getattr(self._table, name)


@pytest.fixture
def store(tmp_path):
    return SqliteStore(tmp_path / "t.db")


@pytest.fixture
def table(store):
    return Counted(SqliteTable(store, "verificationTable"))


def put(table, *verifications):
    """As handleEvent stores them."""
    for each in verifications:
        table._table.batch_put([verification_item(each, NOON)])
        write_newest(table._table, [each.global_user_id])


def result(user, status, time_ms=NOON, name="v"):
    return Verification(name, user, Status(status), time_ms)


def profiled(user, time_ms=NOON):
    message = caused_by(Cause.ON_DEMAND, user, f"a{time_ms}", time_ms, "r")
    return Profiled(ReceivedMessage("", user, b"", 1, "m"), message, NOBODY_KNOWS)


def batch(*items):
    return Batch("r", "q", list(items))


def statuses(table, *moments):
    found = FanVerifications(table).known(list(moments))
    return [each.verification and each.verification.status.value for each in found]


def test_each_fans_newest_result_is_read_in_one_go(table):
    put(table, result("a", "PASSED"), result("b", "FAILED"))
    assert statuses(table, ("a", NOON), ("none", NOON), ("b", NOON), ("a", NOON + 1)) == [
        "PASSED",
        None,
        "FAILED",
        "PASSED",
    ]
    assert table.reads == {"batch_get": 1}


def test_a_later_result_is_not_known_yet_and_the_one_before_it_is_found(table):
    put(table, result("a", "PASSED", NOON, "v1"), result("a", "FAILED", NOON + 10, "v2"))
    assert statuses(table, ("a", NOON - 1), ("a", NOON), ("a", NOON + 9), ("a", NOON + 10)) == [
        None,
        "PASSED",
        "PASSED",
        "FAILED",
    ]
    assert table.reads == {"batch_get": 1}


def test_who_begins_anew_keeps_what_was_found(table):
    put(table, result("a", "FAILED", NOON, "v1"), result("a", "PENDING", NOON + 1, "v2"))
    assert statuses(table, ("a", NOON + 2)) == ["FAILED"]


def test_without_a_table_or_results_a_batch_is_passed_on_as_it_is(table):
    given = batch(profiled("a"))
    assert add_verifications(given, None) is given
    assert add_verifications(given, FanVerifications(table)) is given
    assert add_verifications(batch(), FanVerifications(table)).items == []
    assert table.reads == {"batch_get": 1}


class Model:
    """Scores everybody alike, and remembers what it was asked."""

    def __init__(self, *codes):
        self.asked = []
        self._reasons = tuple(Reason(code, code, None, 0.0) for code in codes)

    def score(self, requests):
        self.asked += requests
        return [ModelScore(80.0, 2, 0.25, 80.0, self._reasons, "m-1") for _ in requests]


def scores_of(store, table, model, *items, imports=None):
    """Through the steps to the table; the latest items and the ARM cache."""
    verified = add_verifications(batch(*items), FanVerifications(table))
    scored = score_users(verified, model, "scoreUsers")
    if imports is not None:
        scored = scored.with_items([msgspec.structs.replace(each, imported=imports) for each in scored.items])
    fans, cache = SqliteTable(store, "fanIdentityTable"), SqliteArmCache(store)
    persist(scored, fans, cache, None, "scoreUsers", lambda *_: None)
    users = [each.message.global_user_id for each in items]
    return [(fans.get(user_pk(user), LATEST_SK), cache.get(arm_cache_key(user))) for user in users]


def test_scores_latest_items_and_the_cache_have_the_effect(store, table):
    put(table, result("passed", "PASSED"), result("failed", "FAILED"), result("pending", "PENDING"))
    found = scores_of(store, table, Model(), *map(profiled, ["passed", "failed", "pending", "none"]))
    assert [(item["accountScore"], item["armRisk"], cached["arm_risk"]) for item, cached in found] == [
        (85.0, 1, 1),
        (70.0, 3, 3),
        (80.0, 2, 2),
        (80.0, 2, 2),
    ]
    passed, failed, pending, none = found
    assert passed[0]["verification"] == {"status": "PASSED", "occurredAt": "2026-11-27T12:00:00.000Z"}
    assert failed[1]["reasons"] == ["IDENTITY_CHECK_FAILED"]
    assert "verification" not in pending[0] and "verification" not in none[0]


def test_an_import_has_its_say_after_a_check(store, table):
    put(table, result("a", "PASSED"))
    ((item, cached),) = scores_of(store, table, Model(), profiled("a"), imports=ImportedValues(0.9))
    assert (item["accountScore"], item["armRisk"], cached["arm_risk"]) == (53.0, 5, 5)
    assert [reason["code"] for reason in item["reasons"]] == ["IDENTITY_VERIFIED", "BOT_OR_NOT_IMPORT"]


def test_a_model_that_names_the_check_has_the_last_word(store, table):
    put(table, result("a", "FAILED"))
    ((item, _),) = scores_of(store, table, Model("IDENTITY_CHECK_FAILED"), profiled("a"))
    assert (item["accountScore"], item["armRisk"], len(item["reasons"])) == (80.0, 2, 1)


def test_a_model_is_told_of_the_check_as_of_the_activity(store, table):
    put(table, result("a", "PASSED", NOON, "v1"), result("a", "FAILED", NOON + 10, "v2"))
    model = Model()
    scores_of(store, table, model, profiled("a", NOON + 5), profiled("a", NOON + 10), profiled("b"))
    bodies = [json.loads(request_body(request)) for request in model.asked]
    assert [body.get("verification") for body in bodies] == [
        {"status": "PASSED", "occurredAt": "2026-11-27T12:00:00.000Z"},
        {"status": "FAILED", "occurredAt": "2026-11-27T12:00:00.010Z"},
        None,
    ]
    assert "verification" not in bodies[2]
    plain = ScoringRequest(model.asked[2].message, model.asked[2].arai)
    assert request_body(plain) == request_body(model.asked[2])


def test_a_result_that_comes_late_counts_in_scores_as_of_then_and_not_before(store, table):
    ((before, _),) = scores_of(store, table, Model(), profiled("a", NOON + 5))
    put(table, result("a", "FAILED", NOON + 6))
    ((again, _),) = scores_of(store, table, Model(), profiled("a", NOON + 5))
    assert {**before, "dateUpdated": ""} == {**again, "dateUpdated": ""}
    ((after, _),) = scores_of(store, table, Model(), profiled("a", NOON + 7))
    assert after["armRisk"] == 3


def test_fans_whose_newest_check_is_under_way_cost_one_read(table):
    """Everybody who begins a check in a sale."""
    for number in range(50):
        put(table, result(f"u{number}", "FAILED", NOON, "v1"), result(f"u{number}", "PENDING", NOON + 1, "v2"))
    assert statuses(table, *[(f"u{number}", NOON + 2) for number in range(50)]) == ["FAILED"] * 50
    assert table.reads == {"batch_get": 1}


def test_only_what_is_older_than_all_that_is_kept_is_queried_and_all_fans_in_one_call(table):
    for user in ("a", "b"):
        put(table, result(user, "PASSED", NOON, "v0"))
        put(table, *[result(user, "PENDING", NOON + n, f"v{n}") for n in range(1, MOST_KEPT + 1)])
    put(table, result("c", "PASSED"))
    moments = [("a", NOON), ("b", NOON + MOST_KEPT), ("c", NOON), ("a", NOON + 1)]
    assert statuses(table, *moments) == ["PASSED"] * 4
    assert table.reads == {"batch_get": 1, "query_many": 1}
    assert [known.results for known in FanVerifications(table).known(moments)] == [1, MOST_KEPT + 1, 1, 2]


def test_an_item_from_before_others_were_kept_says_what_it_did(table):
    """And the next result makes one of today's of it."""
    for each in (result("a", "PASSED", NOON, "v1"), result("a", "FAILED", NOON + 1, "v2")):
        item = verification_item(each, NOON)
        table._table.batch_put([item])
        table._table.put_if_newer([(each.version, {**item, "SK": "VERIFICATION", "verificationSK": item["SK"]})])
    assert statuses(table, ("a", NOON + 1)) == ["FAILED"]
    assert table.reads == {"batch_get": 1}
    assert statuses(table, ("a", NOON)) == ["PASSED"]
    put(table, result("a", "PENDING", NOON + 2, "v3"))
    table.reads.clear()
    assert statuses(table, ("a", NOON), ("a", NOON + 3)) == ["PASSED", "FAILED"]
    assert table.reads == {"batch_get": 1}


RESULTS = st.lists(
    st.tuples(st.sampled_from([*"abc", "x" * 10_000, "sha256:a"]), st.sampled_from(Status), st.integers(0, 6)),
    max_size=12,
    unique=True,
)


@given(RESULTS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_whatever_the_order_one_read_says_what_all_results_say(tmp_path_factory, results, kept, shuffle):
    """Also where few are kept, in batches of any size, each twice."""
    checks = [result("u", status, NOON + at * DAY * 40, name) for name, status, at in results]
    store = SqliteStore(tmp_path_factory.mktemp("known") / "t.db")
    table, items = SqliteTable(store, "verificationTable"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification_module, "MOST_KEPT", kept)
        for _ in range(2):
            left = shuffle.sample(checks * 2, len(checks) * 2)
            while left:
                size = shuffle.randint(1, 5)
                table.batch_put([verification_item(each, NOON) for each in left[:size]])
                write_newest(table, ["u"])
                left = left[size:]
            items.append(table.get(user_pk("u"), VERIFIED_SK))
            moments = [NOON + day * DAY for day in range(-1, 500, 20)]
            for moment, known in zip(
                moments, FanVerifications(table).known([("u", at) for at in moments]), strict=True
            ):
                expected = deciding(checks, moment)
                assert (known.verification and (known.verification.status, known.verification.time_ms)) == (
                    expected and (expected.status, expected.time_ms)
                )
                assert known.results == sum(each.time_ms <= moment for each in checks)
            table.batch_delete([(item["PK"], item["SK"]) for item in table.scan()])
    assert items[0] == items[1]
    store.close()


def lasting(item):
    return {name: value for name, value in item.items() if name not in ("dateUpdated", "SK", "scoreSK")}


@pytest.mark.parametrize("late", ["FAILED", "PASSED", "PENDING", "EXPIRED"])
def test_a_redelivery_after_a_result_that_came_late_changes_what_is_served_with_the_history(store, table, late):
    put(table, result("a", "PASSED", NOON - 2, "v1"))
    scores_of(store, table, Model(), profiled("a"))
    put(table, result("a", late, NOON - 1, "v1"))
    ((latest, cached),) = scores_of(store, table, Model(), profiled("a"))
    history = SqliteTable(store, "fanIdentityTable").get(latest["PK"], latest["scoreSK"])
    assert lasting(latest) == lasting(history)
    assert cached["arm_risk"] == history["armRisk"] == {"FAILED": 3, "PASSED": 1}.get(late, 2)


@pytest.mark.parametrize("seed", range(25))
def test_stream_then_backfill_is_the_same_in_any_order_of_activities_and_results(tmp_path, seed):
    """Activities stream in among results, then all come again: history and what is served agree, and are the same."""
    checks = [
        *[result("a", status, NOON + n, f"v{n % 2}") for n, status in enumerate(["FAILED", "PASSED", "EXPIRED"])],
        *[result("b", status, NOON + n, f"v{n}") for n, status in enumerate(["PASSED", "PENDING", "FAILED"])],
    ]
    activities = [profiled(user, NOON + n) for user in "abc" for n in range(4)]

    def ends(shuffle, name):
        store = SqliteStore(tmp_path / name)
        table = Counted(SqliteTable(store, "verificationTable"))
        for step in shuffle.sample([*checks, *activities], len(checks) + len(activities)):
            put(table, step) if isinstance(step, Verification) else scores_of(store, table, Model(), step)
        scores_of(store, table, Model(), *shuffle.sample(activities, len(activities)))
        fans, cache = SqliteTable(store, "fanIdentityTable"), SqliteArmCache(store)
        items = [{**item, "dateUpdated": ""} for item in fans.scan()]
        for user in "abc":
            latest = fans.get(user_pk(user), LATEST_SK)
            history = fans.get(latest["PK"], latest["scoreSK"])
            assert lasting(latest) == lasting(history)
            assert cache.get(arm_cache_key(user))["arm_risk"] == history["armRisk"]
        store.close()
        return items

    assert ends(random.Random(seed), "one.db") == ends(random.Random(-seed - 1), "other.db")


def test_a_late_result_counts_after_imports_were_followed(store, table):
    """Bringing a score under newer imports keeps what it knows of checks, and a stale worker does not undo it."""
    put(table, result("a", "FAILED", NOON - 1, "v2"))
    ((latest, _),) = scores_of(store, table, Model(), profiled("a"))
    followed = rescored(latest, ImportedValues(0.9), 1, NOON)
    fans = SqliteTable(store, "fanIdentityTable")
    assert fans.put_if_newer([(followed.version, followed.latest)]) == [True]
    message = profiled("a").message
    assert version_of(message, 1) < followed.version == version_of(message, 1, 1) < version_of(message, 1, 2)


def test_without_results_a_score_and_its_version_are_what_they_were(store, table):
    ((latest, _),) = scores_of(store, table, Model(), profiled("none"))
    assert "verificationResults" not in latest
    versions = store.connection.execute("SELECT version FROM items WHERE sk = 'LATEST'").fetchall()
    assert versions == [(version_of(profiled("none").message),)]
