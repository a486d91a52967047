"""Identity checks in scores: the one as of the activity counts, in the very next score, with few reads."""

import json
from collections import Counter

import msgspec
import pytest

from fan_identity.domain.arai import Arai
from fan_identity.domain.import_effects import ImportedValues
from fan_identity.domain.keys import LATEST_SK, arm_cache_key, user_pk
from fan_identity.domain.messages import Cause, caused_by
from fan_identity.domain.profile import FEATURES, Profile
from fan_identity.domain.records import Batch
from fan_identity.domain.scorecard import ModelScore, Reason
from fan_identity.domain.verification import (
    Status,
    Verification,
    newest_verification_item,
    verification_item,
)
from fan_identity.io.fan_verifications import FanVerifications, add_verifications
from fan_identity.io.persisting import persist
from fan_identity.io.ports import ReceivedMessage, ScoringRequest
from fan_identity.io.scoring_model import request_body
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteArmCache, SqliteTable
from fan_identity.io.steps import Profiled, score_users

NOON = 1_795_780_800_000
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
        item = verification_item(each, NOON)
        table._table.batch_put([item])
        table._table.put_if_newer([(each.version, newest_verification_item(item))])


def result(user, status, time_ms=NOON, name="v"):
    return Verification(name, user, Status(status), time_ms)


def profiled(user, time_ms=NOON):
    message = caused_by(Cause.ON_DEMAND, user, f"a{time_ms}", time_ms, "r")
    return Profiled(ReceivedMessage("", user, b"", 1, "m"), message, NOBODY_KNOWS)


def batch(*items):
    return Batch("r", "q", list(items))


def statuses(table, *moments):
    found = FanVerifications(table).deciding(list(moments))
    return [each and each.status.value for each in found]


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
    assert table.reads == {"batch_get": 1, "query": 1}, "one read of the fan's results, whatever number of moments"


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
