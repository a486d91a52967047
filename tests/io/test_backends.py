"""Addresses: what they name, and what is said of those that name nothing."""

import pickle
from importlib.resources import files

import pytest

from fan_identity.domain.imports import ImportKind, Pointer, pointer_item
from fan_identity.io.addresses import Address, parse_address
from fan_identity.io.backends import Backends, open_model, sqlite_store
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.ports import QueueEntry
from fan_identity.io.settings import load_settings
from fan_identity.io.sqlite.table import SqliteTable

PARTS = ("queue", "table", "cache", "dead_letters", "arai")


@pytest.fixture
def address(tmp_path):
    return f"sqlite:///{tmp_path}/s.db"


def backends(**settings):
    return Backends.of(load_settings(**settings))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("sqlite:///fans.db", Address("sqlite", "/fans.db")),
        ("SQLite:////tmp/a b.db", Address("sqlite", "//tmp/a b.db")),
        ("sqlite:///f.db?queue=q&table=t%20t", Address("sqlite", "/f.db", {"queue": "q", "table": "t t"})),
        ("redis://host:1/0", Address("redis", "host:1/0")),
        ("x://", Address("x", "")),
        ("dynamodb-streams://t", Address("dynamodb-streams", "t")),
        ("x://a://b?", Address("x", "a://b")),
    ],
)
def test_an_address_has_scheme_target_and_options(text, address):
    assert parse_address(text, "queue") == address


@pytest.mark.parametrize("text", ["", "fans.db", "://x", "sqlite:/fans.db", "my scheme://x", "-b://x", "ä://x"])
def test_what_is_no_address_is_told_by_its_setting(text):
    with pytest.raises(UsageError, match=r"^--queue: not an address; write for example sqlite:///fans\.db$"):
        parse_address(text, "queue")


@pytest.mark.parametrize("query", ["queue", "a=1&b", "&", "=&x"])
def test_options_are_name_and_value(query):
    with pytest.raises(UsageError, match="--table: options are written"):
        parse_address(f"sqlite:///f.db?{query}", "table")


def test_three_slashes_are_relative_and_four_absolute():
    assert str(sqlite_store("sqlite:///fans.db", "store").path) == "fans.db"
    assert str(sqlite_store("sqlite:////tmp/fans.db", "store").path) == "/tmp/fans.db"
    assert str(sqlite_store("sqlite:///a/../fans.db?queue=q", "store").path) == "a/../fans.db"


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///", "sqlite://fans.db", "sqlite://host/fans.db"])
def test_an_sqlite_address_needs_a_file(text):
    with pytest.raises(UsageError, match=r"--store: write sqlite:///file\.db"):
        sqlite_store(text, "store")


def test_another_scheme_is_refused_by_name():
    with pytest.raises(UsageError, match=r"--cache: redis:// is not supported here"):
        sqlite_store("redis://host/0", "cache")


def test_parts_on_one_file_share_a_store(tmp_path):
    one = sqlite_store(f"sqlite:///{tmp_path}/s.db", "queue")
    assert sqlite_store(f"sqlite:///{tmp_path}/s.db?table=t", "table") is one
    assert sqlite_store(f"sqlite:///{tmp_path}/other.db", "table") is not one


def test_a_store_stands_for_every_part(address):
    made = backends(store=address)
    assert {getattr(made, part) for part in PARTS} == {address}
    assert made.positions == address
    assert made.model is None
    assert made.visibility_timeout_ms == 60_000


@pytest.mark.parametrize("part", PARTS)
def test_a_parts_own_address_goes_before_the_store(address, tmp_path, part):
    own = f"sqlite:///{tmp_path}/{part}.db"
    made = backends(store=address, **{part: own}, visibility_timeout=1.5)
    assert {other: getattr(made, other) for other in PARTS} == {**dict.fromkeys(PARTS, address), part: own}
    assert made.positions == address
    assert made.visibility_timeout_ms == 1_500


def test_without_a_store_positions_are_with_the_queue(tmp_path):
    own = {part: f"sqlite:///{tmp_path}/{part}.db" for part in PARTS}
    assert backends(**own).positions == own["queue"]


@pytest.mark.parametrize("part", [part for part in PARTS if part != "arai"])
def test_a_part_without_an_address_is_named(tmp_path, part):
    others = {other: f"sqlite:///{tmp_path}/s.db" for other in PARTS if other != part}
    with pytest.raises(UsageError) as caught:
        backends(**others)
    assert f"--{part.replace('_', '-')}" in str(caught.value)
    assert f"FAN_IDENTITY_{part.upper()}" in str(caught.value)
    assert "--store sqlite:///" in str(caught.value)


def test_without_an_address_profiles_are_with_the_table(tmp_path):
    others = {other: f"sqlite:///{tmp_path}/{other}.db" for other in PARTS if other != "arai"}
    assert backends(**others).arai == others["table"]


def test_a_wrong_address_is_told_before_anything_is_opened(address, tmp_path):
    with pytest.raises(UsageError, match=r"--dead-letters: kafka:// is not supported"):
        backends(store=address, dead_letters="kafka://x")
    assert list(tmp_path.iterdir()) == []


def test_backends_travel_as_text(address):
    made = backends(store=address)
    assert pickle.loads(pickle.dumps(made)) == made
    assert b"Connection" not in pickle.dumps(made)


def test_options_name_queue_and_table(address):
    default, named = backends(store=address), backends(store=address + "?queue=q2&table=t2")
    named.open_queue().send([QueueEntry("g", "d", b"x")])
    named.open_table().put({"PK": "a", "SK": "b"})
    assert (default.open_queue().depth(), named.open_queue().depth()) == (0, 1)
    assert default.open_table().get("a", "b") is None
    store = sqlite_store(address, "store")
    assert SqliteTable(store, "t2").get("a", "b") == {"PK": "a", "SK": "b"}
    default.open_table().put({"PK": "c", "SK": "d"})
    assert SqliteTable(store, "fanIdentityTable").get("c", "d") is not None


def test_every_part_opens_on_one_file(address, tmp_path):
    made = backends(store=address)
    assert made.open_arai().fetch([]) == []
    assert made.open_cache().get("user:1") is None
    made.open_dead_letters().write([])
    made.open_positions().commit("w", "f", "1")
    assert made.open_positions().load("w", "f") == "1"
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"s.db"}


def test_a_worker_without_a_cache_opens_none():
    made = Backends.of(load_settings(store="sqlite:///q"), "stagingScoreUsers")
    assert made.cache is None
    assert made.open_cache() is None


@pytest.mark.parametrize("worker", ["scoreUsers", "stagingScoreUsers", "processRescoreEvents"])
def test_imports_are_in_the_fan_identity_table_whatever_the_worker_writes(address, worker):
    pointer = pointer_item(ImportKind.BOT_OR_NOT, Pointer("v1", 7, 0))
    backends(store=address).open_table().put(pointer)
    assert Backends.of(load_settings(store=address), worker).open_imports().generation() == 7
    own = load_settings(store="sqlite:///elsewhere.db", table=address)
    assert Backends.of(own, worker).open_imports().generation() == 7


def test_a_staging_worker_without_a_fan_identity_table_applies_no_imports(address):
    own = dict.fromkeys(("staging_queue", "staging_table", "dead_letters", "arai"), address)
    assert Backends.of(load_settings(**own), "stagingScoreUsers").open_imports() is None


def test_the_packaged_model_and_a_file_score_alike(tmp_path):
    packaged = open_model(None)
    path = tmp_path / "scorecard.json"
    path.write_bytes(files("fan_identity.io").joinpath("scorecard.json").read_bytes())
    assert open_model(f"file://{path}").scorecard.file == packaged.scorecard.file


def test_a_model_that_is_missing_or_none_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--model: .*missing\.json cannot be read: No such file"):
        open_model(f"file://{tmp_path}/missing.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match=r"--model: .*bad\.json is no scorecard"):
        open_model(f"file://{tmp_path}/bad.json")
    with pytest.raises(UsageError, match=r"--model: .* cannot be read"):
        open_model(f"file://{tmp_path}")


def test_a_worker_does_not_run_beside_one_that_works_alone(address):
    made = backends(store=address)
    with made.shared_lock(), made.shared_lock(), pytest.raises(BackendUnavailableError), made.exclusive_lock():
        pass
    with made.exclusive_lock(), pytest.raises(BackendUnavailableError), made.shared_lock():
        pass
