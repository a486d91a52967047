"""Scores under the active imports: of two writes the right one stays, none under imports that are active no more."""

import itertools
import random
from collections import Counter

import msgspec
import pytest

from fan_identity.domain.import_effects import ImportedValues, rescored, with_imports
from fan_identity.domain.imports import Cluster, ImportKind, Pointer, fan_item, pointer_item
from fan_identity.domain.keys import LATEST_SK, arm_cache_key, user_pk
from fan_identity.domain.messages import ScoringMessage
from fan_identity.domain.records import Batch
from fan_identity.domain.scorecard import ModelScore, Reason
from fan_identity.domain.scores import latest_item, score_item
from fan_identity.io.active_imports import ActiveImports
from fan_identity.io.persisting import apply_imports, persist
from fan_identity.io.ports import ReceivedMessage
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteArmCache, SqliteTable
from fan_identity.io.steps import Scored

NOON = 1_718_366_400_000
WORKER = "scoreUsers"
BON, CLUSTER = ImportKind.BOT_OR_NOT, ImportKind.CLUSTER
VALUES = {"v1": 0.75, "v2": 0.95}


@pytest.fixture
def store(tmp_path):
    return SqliteStore(tmp_path / "t.db")


@pytest.fixture
def table(store):
    made = SqliteTable(store, "fanIdentityTable")
    made.batch_put([fan_item(BON, version, user_pk("u1"), value, None, 0) for version, value in VALUES.items()])
    return made


@pytest.fixture
def cache(store):
    return SqliteArmCache(store)


def activate(table, version, generation):
    table.put(pointer_item(BON, Pointer(version, generation, 0)))


def follow(table, cache, version, generation, user="u1"):
    """What brings a fan's stored score under newly active imports."""
    latest = table.get(user_pk(user), LATEST_SK)
    values = ImportedValues() if version is None else ImportedValues(VALUES[version])
    new = rescored(latest, values, generation, NOON)
    if table.put_if_newer([(new.version, new.latest)]) == [True]:
        table.put(new.score)
        cache.put_if_newer([(new.cache.key, new.cache.version, new.cache.value)])


def scored(activity_id="a1", *, user="u1", time_ms=NOON, account_score=80.0):
    message = ScoringMessage(
        global_user_id=user,
        activity_id=activity_id,
        activity_type="login",
        occurred_at=time_ms,
        request_id="r",
        worker="enqueueFromStream",
        activity=msgspec.Raw(b"{}"),
    )
    reasons = (Reason("ASSET_LOADS", "assetShare", 0.25, account_score - 70),)
    score = ModelScore(account_score, 1, 0.25, 70.0, reasons, "m-1")
    return Scored(ReceivedMessage("", user, b"", 1, activity_id), message, score)


def batch(*items):
    return Batch("r", "q", list(items))


def lasting(item):
    return {name: value for name, value in item.items() if name != "dateUpdated"}


def expected(one, bon_score):
    item = score_item(one.message, one.score, WORKER, 0)
    return lasting(item if bon_score is None else with_imports(item, ImportedValues(bon_score)))


def check(table, cache, one, bon_score, user="u1"):
    """Latest item, the score it repeats and cache entry are of this cause under these imports."""
    item = expected(one, bon_score)
    assert lasting(table.get(user_pk(user), LATEST_SK)) == latest_item(item)
    assert lasting(table.get(item["PK"], item["SK"])) == item
    value = cache.get(arm_cache_key(user))
    assert (value["arm_risk"], value["timestamp"]) == (item["armRisk"], one.message.occurred_at)
    assert value["reasons"] == [reason["code"] for reason in item["reasons"]]


def score(table, cache, imports, *items):
    counts = Counter()

    def count(name, number):
        counts[name] += number

    done = persist(apply_imports(batch(*items), imports), table, cache, imports, WORKER, count)
    assert counts == {"scored": len(items)} and len(done.items) == len(items)


def test_a_score_has_the_effect_of_the_active_imports_wherever_it_stands(table, cache):
    activate(table, "v2", 1)
    table.put(pointer_item(CLUSTER, Pointer("v9", 1, 0)))
    table.put(fan_item(CLUSTER, "v9", user_pk("u2"), "c-7", 20, 0))
    score(table, cache, ActiveImports(table), scored(), scored(user="u2"), scored(user="u3"))
    check(table, cache, scored(), 0.95)
    assert cache.get(arm_cache_key("u1"))["arm_risk"] == 5
    assert cache.get(arm_cache_key("u1"))["reasons"] == ["ASSET_LOADS", "BOT_OR_NOT_IMPORT"]
    in_cluster = table.get(user_pk("u2"), LATEST_SK)
    values = ImportedValues(None, Cluster("c-7", 20))
    plain = score_item(scored(user="u2").message, scored().score, WORKER, 0)
    assert lasting(in_cluster) == lasting(latest_item(with_imports(plain, values)))
    assert cache.get(arm_cache_key("u2"))["arm_risk"] == 2
    check(table, cache, scored(user="u3"), None, "u3")


@pytest.mark.parametrize("without", [None, ActiveImports])
def test_without_imports_all_is_as_it_was(table, cache, store, without):
    score(table, cache, without and without(table), scored())
    assert list(table.get(user_pk("u1"), LATEST_SK)) == list(
        latest_item(score_item(scored().message, scored().score, "", 0))
    )
    check(table, cache, scored(), None)
    versions = store.connection.execute(
        "SELECT version FROM items WHERE sk = 'LATEST' UNION SELECT version FROM arm_cache"
    )
    assert versions.fetchall() == [(f"{NOON + 62_135_596_800_000:015d}#a1",)]


def test_the_same_cause_under_newer_imports_replaces_it(table, cache):
    imports = ActiveImports(table)
    score(table, cache, imports, scored())
    activate(table, "v1", 1)
    follow(table, cache, "v1", 1)
    check(table, cache, scored(), 0.75)
    activate(table, "v2", 2)
    imports.generation()
    score(table, cache, imports, scored())  # delivered a second time
    check(table, cache, scored(), 0.95)
    activate(table, None, 3)
    follow(table, cache, None, 3)
    check(table, cache, scored(), None)


def test_the_same_cause_under_older_imports_does_not(table, cache):
    activate(table, "v1", 1)
    score(table, cache, ActiveImports(table), scored())
    activate(table, "v2", 2)
    follow(table, cache, "v2", 2)
    follow(table, cache, "v1", 1)  # late
    check(table, cache, scored(), 0.95)


def test_a_newer_activity_under_older_imports_wins_and_is_brought_under_the_newer(table, cache):
    activate(table, "v2", 2)
    score(table, cache, ActiveImports(table), scored("a1"))
    newer, nothing = scored("a2", time_ms=NOON + 1), ActiveImports(SqliteTable(table._store, "elsewhere"))
    score(table, cache, nothing, newer)
    check(table, cache, newer, None)
    follow(table, cache, "v2", 2)
    check(table, cache, newer, 0.95)


def test_a_late_activity_under_newer_imports_loses(table, cache):
    newer, late = scored("a2", time_ms=NOON + 1), scored("a1")
    score(table, cache, ActiveImports(table), newer)
    activate(table, "v2", 2)
    score(table, cache, ActiveImports(table), late)
    check(table, cache, newer, None)
    assert lasting(table.get(user_pk("u1"), expected(late, None)["SK"])) == expected(late, 0.95), "but it is kept"


class Interrupted:
    """Tables or caches that let something happen before their n-th call, all together."""

    def __init__(self, at, event):
        self._left = at
        self._event = event

    def around(self, client):
        """The client, with its calls counted."""
        return _Counted(client, self.count)

    def count(self):
        self._left -= 1
        if self._left == 0:
            self._event()


class _Counted:
    def __init__(self, client, count):
        self._client = client
        self._count = count

    def __getattr__(self, name):
        self._count()
        return getattr(self._client, name)


CALLS = ["read pointers", "read values", "write scores", "write latest", "write cache", "read pointers again"]


@pytest.mark.parametrize("at", range(len(CALLS) + 1))
@pytest.mark.parametrize("version", ["v2", None])
def test_whenever_an_import_becomes_active_the_score_ends_up_under_it(table, cache, at, version):
    """Activating moves the pointer, then brings the stored scores under it: one interleaving for each call."""
    activate(table, "v1", 1)
    score(table, cache, ActiveImports(table), scored("a1"))
    happened = []

    def activation():
        happened.append(version)
        activate(table, version, 2)
        follow(table, cache, version, 2)

    interrupted = Interrupted(at + 1, activation)
    slow = interrupted.around(table)
    score(slow, interrupted.around(cache), ActiveImports(slow), scored("a2", time_ms=NOON + 1))
    assert bool(happened) == (at < len(CALLS)), "each call is an interleaving of this test, and there are no more"
    if not happened:
        activation()
    check(table, cache, scored("a2", time_ms=NOON + 1), None if version is None else 0.95)


def test_whatever_the_order_of_deliveries_and_imports_the_end_is_the_same(tmp_path):
    """Two deliveries of three activities and three moves of the pointer, in many orders."""
    causes = [scored(f"a{number}", time_ms=NOON + number) for number in range(3)]
    moves = [("v1", 1), ("v2", 2), (None, 3), ("v1", 4)]
    for number, seed in enumerate(range(40)):
        store = SqliteStore(tmp_path / f"{number}.db")
        table, cache = SqliteTable(store, "fanIdentityTable"), SqliteArmCache(store)
        table.batch_put([fan_item(BON, name, user_pk("u1"), value, None, 0) for name, value in VALUES.items()])
        imports = [ActiveImports(table, fresh_seconds=10**9) for _ in range(2)]  # workers that rarely look
        deliveries = [(one, worker) for one, worker in itertools.product(causes, imports)]
        random.Random(seed).shuffle(deliveries)
        plan = [*deliveries, *[None] * len(moves)]
        random.Random(-seed).shuffle(plan)
        left = iter(moves)
        for step in plan:
            if step is None:
                version, generation = next(left)
                activate(table, version, generation)
                if table.get(user_pk("u1"), LATEST_SK) is not None:
                    follow(table, cache, version, generation)
            else:
                score(table, cache, step[1], step[0])
        check(table, cache, causes[-1], 0.75)
        store.close()
