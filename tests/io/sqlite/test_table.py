"""The embedded table and ARM cache: keys, order, and newer wins whatever the order of arrival."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteArmCache, SqliteTable


@pytest.fixture
def store(tmp_path):
    return SqliteStore(tmp_path / "t.db")


@pytest.fixture
def table(store):
    return SqliteTable(store, "t")


def item(pk="USER#1", sk="SCORE#1", **more):
    return {"PK": pk, "SK": sk, **more}


def test_an_item_is_read_as_it_was_written(table):
    full = item(score=74.25, arm=5, text="ü\0\u202e", nothing=None, list=[{"code": "A", "points": -1.5}], big=2**63 - 1)
    table.put(full)
    assert table.get("USER#1", "SCORE#1") == full
    assert list(table.get("USER#1", "SCORE#1")) == list(full)


def test_what_is_not_there_is_none(table):
    table.put(item())
    assert table.get("USER#1", "SCORE#2") is None
    assert table.get("USER#2", "SCORE#1") is None
    assert table.query("USER#2") == []


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
KEYS = st.tuples(TEXTS, TEXTS)


@given(st.sets(KEYS, max_size=8), st.lists(KEYS, max_size=20), st.sets(KEYS, max_size=4), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_many_keys_are_read_and_deleted_as_one_by_one(tmp_path_factory, stored, other, deleted, part):
    store = SqliteStore(tmp_path_factory.mktemp("t") / "t.db")
    table = SqliteTable(store, "t")
    table.batch_put([item(pk, sk, key=[pk, sk]) for pk, sk in stored])
    asked = [*stored, *other, *other, *deleted]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fan_identity.io.sqlite.table._KEYS_A_STATEMENT", part)
        found = table.batch_get(asked)
    assert found == [item(*key, key=list(key)) if key in stored else None for key in asked]
    table.batch_delete([*deleted, *deleted])
    table.batch_delete(list(deleted))
    assert table.batch_get(asked) == [table.get(*key) for key in asked]
    assert {(one["PK"], one["SK"]) for one in table.scan()} == stored - deleted
    store.close()


def test_ten_thousand_keys_take_few_statements(store, table):
    table.batch_put([item(f"USER#{number}", "LATEST", n=number) for number in range(10_000)])
    statements = []
    store.connection.set_trace_callback(statements.append)
    found = table.batch_get([(f"USER#{number}", "LATEST") for number in range(9_999, -1, -1)])
    assert [one["n"] for one in found] == list(range(9_999, -1, -1))
    assert 0 < len(statements) <= 20
    table.batch_delete([(f"USER#{number}", "LATEST") for number in range(1, 10_000)])
    assert list(table.scan()) == [item("USER#0", "LATEST", n=0)]


def test_many_keys_stay_in_their_table(store):
    one, other = SqliteTable(store, "one"), SqliteTable(store, "other")
    one.put(item(n=1))
    other.batch_delete([("USER#1", "SCORE#1")])
    assert other.batch_get([("USER#1", "SCORE#1")]) == [None]
    assert one.batch_get([("USER#1", "SCORE#1")]) == [item(n=1)]
    assert one.batch_get([]) == []


def test_a_second_put_replaces_the_whole_item(table):
    table.put(item(old=1))
    table.put(item(new=2))
    assert table.get("USER#1", "SCORE#1") == item(new=2)
    assert len(table.query("USER#1")) == 1


def test_of_equal_keys_in_one_batch_the_last_stays(table):
    table.batch_put([item(n=1), item(n=2), item(sk="SCORE#2", n=3)])
    assert [one["n"] for one in table.query("USER#1")] == [2, 3]


def test_a_batch_is_written_wholly_or_not_at_all(table):
    with pytest.raises(KeyError):
        table.batch_put([item(), {"PK": "USER#1"}])
    with pytest.raises(TypeError):
        table.put_if_newer([("1", item()), ("2", item(sk="SCORE#2", odd=object()))])
    assert table.query("USER#1") == []


def test_query_is_in_sort_key_order_under_a_prefix(table):
    table.batch_put([item(sk=sk) for sk in ("SCORE#3", "LATEST", "SCORE#1", "SCORE%", "score#0", "SCORE#2")])
    table.put(item("USER#10", "SCORE#0"))

    def found(*args, **more):
        return [one["SK"] for one in table.query("USER#1", *args, **more)]

    assert found("SCORE#") == ["SCORE#1", "SCORE#2", "SCORE#3"]
    assert found() == ["LATEST", "SCORE#1", "SCORE#2", "SCORE#3", "SCORE%", "score#0"]
    assert found("SCORE#", newest_first=True) == ["SCORE#3", "SCORE#2", "SCORE#1"]
    assert found("SCORE#", newest_first=True, limit=2) == ["SCORE#3", "SCORE#2"]
    assert found("SCORE#", limit=0) == []
    assert found("SCORE_") == found("SCORE#%") == []  # no wildcards


def test_scan_is_in_the_order_of_the_keys(table):
    table.batch_put([item(pk, sk) for pk in ("USER#b", "USER#a") for sk in ("SCORE#2", "LATEST", "SCORE#1")])
    assert [(one["PK"], one["SK"]) for one in table.scan("SCORE#")] == [
        ("USER#a", "SCORE#1"),
        ("USER#a", "SCORE#2"),
        ("USER#b", "SCORE#1"),
        ("USER#b", "SCORE#2"),
    ]
    assert len(list(table.scan())) == 6


def test_tables_in_one_store_do_not_mix(store):
    one, other = SqliteTable(store, "one"), SqliteTable(store, "other")
    one.put(item(n=1))
    assert other.get("USER#1", "SCORE#1") is None
    assert list(other.scan()) == other.query("USER#1") == []
    other.put(item(n=2))
    assert one.get("USER#1", "SCORE#1") == item(n=1)


def test_only_a_greater_version_is_written(table):
    assert table.put_if_newer([("5", item(n=5))]) == [True]
    assert table.put_if_newer([("5", item(n=0)), ("4", item(n=4))]) == [False, False]
    assert table.get("USER#1", "SCORE#1") == item(n=5)
    assert table.put_if_newer([("4", item(sk="LATEST", n=4)), ("6", item(n=6)), ("5", item(n=0))]) == [
        True,
        True,
        False,
    ]
    assert table.get("USER#1", "SCORE#1") == item(n=6)


def test_an_item_put_without_a_version_gives_way_to_any(table):
    table.put_if_newer([("9", item(n=9))])
    table.put(item(n=0))
    assert table.put_if_newer([("1", item(n=1))]) == [True]
    assert table.put_if_newer([("0", item(n=0))]) == [False]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
WRITES = st.lists(st.tuples(st.sampled_from("abc"), TEXT), min_size=1, max_size=12)


@given(WRITES, st.randoms(use_true_random=False), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_whatever_the_order_the_greatest_version_stays(tmp_path_factory, writes, random, cut):
    store = SqliteStore(tmp_path_factory.mktemp("t") / "t.db")
    table, cache = SqliteTable(store, "t"), SqliteArmCache(store)
    # A version stands for one content, as the activity that caused it does.
    shuffled = [*writes, *writes]
    random.shuffle(shuffled)
    for start in range(0, len(shuffled), cut):
        part = shuffled[start : start + cut]
        table.put_if_newer([(version, item(pk, v=version)) for pk, version in part])
        cache.put_if_newer([(pk, version, {"v": version}) for pk, version in part])
    for pk in {pk for pk, _ in writes}:
        newest = max(version for of, version in writes if of == pk)
        assert table.get(pk, "SCORE#1")["v"] == newest
        assert cache.get(pk) == {"v": newest}
    store.close()


def test_the_cache_answers_by_key(store):
    cache = SqliteArmCache(store)
    assert cache.get("user:1") is None
    cache.put_if_newer([("user:2", "1", {"arm_risk": 2}), ("user:1", "1", {"b": 1, "a": None, "t": "ü"})])
    assert list(cache.get("user:1").items()) == [("b", 1), ("a", None), ("t", "ü")]
    assert list(cache.scan()) == [("user:1", {"b": 1, "a": None, "t": "ü"}), ("user:2", {"arm_risk": 2})]


def test_the_cache_keeps_the_first_of_one_version(store):
    cache = SqliteArmCache(store)
    cache.put_if_newer([("k", "1", {"n": 1}), ("k", "1", {"n": 2})])
    cache.put_if_newer([("k", "0", {"n": 3})])
    assert cache.get("k") == {"n": 1}


def test_a_deleted_key_is_unknown_and_has_no_version(store):
    cache = SqliteArmCache(store)
    cache.put_if_newer([("user:%", "5", {"n": 1}), ("user:a", "5", {"n": 2})])
    cache.delete(["user:%", "user:none"])
    assert (cache.get("user:%"), cache.get("user:a")) == (None, {"n": 2})
    cache.put_if_newer([("user:%", "1", {"n": 3})])
    assert cache.get("user:%") == {"n": 3}
