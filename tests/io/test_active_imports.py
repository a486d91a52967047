"""What the active imports say of fans: read when it must be, of the version the pointers name."""

import pytest

from fan_identity.domain.import_effects import NOTHING_IMPORTED, ImportedValues
from fan_identity.domain.imports import Cluster, ImportKind, Pointer, fan_item, pointer_item
from fan_identity.domain.keys import user_pk
from fan_identity.io.active_imports import ActiveImports
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

BON, CLUSTER = ImportKind.BOT_OR_NOT, ImportKind.CLUSTER


class Reads(SqliteTable):
    """A table that notes how many keys each read asks for."""

    def __init__(self, store, name):
        super().__init__(store, name)
        self.keys = []

    def batch_get(self, keys):
        self.keys.append(len(keys))
        return super().batch_get(keys)


@pytest.fixture
def table(tmp_path):
    return Reads(SqliteStore(tmp_path / "t.db"), "fanIdentityTable")


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def imports(table, now):
    return ActiveImports(table, clock=lambda: now[0])


def activate(table, kind, version, generation):
    table.put(pointer_item(kind, Pointer(version, generation, 0)))


def fill(table):
    table.batch_put(
        [
            fan_item(BON, "v1", user_pk("both"), 0.75, None, 0),
            fan_item(BON, "v2", user_pk("both"), 1, None, 0),
            fan_item(BON, "v1", user_pk("bot"), 0.9, None, 0),
            fan_item(CLUSTER, "v1", user_pk("both"), "c-7", 25, 0),
            fan_item(CLUSTER, "v1", user_pk("x" * 2_000), "c-8", 1, 0),
        ]
    )


def test_where_nothing_is_active_only_the_pointers_are_read(table, imports):
    fill(table)
    assert imports.values(["both", "bot"]) == (0, [NOTHING_IMPORTED] * 2)
    assert table.keys == [2]


def test_each_user_gets_the_values_of_the_active_versions_in_one_read(table, imports):
    fill(table)
    activate(table, BON, "v1", 3)
    activate(table, CLUSTER, "v1", 4)
    both = ImportedValues(0.75, Cluster("c-7", 25))
    assert imports.values(["both", "nobody", "x" * 2_000, "bot", "both"]) == (
        7,
        [both, NOTHING_IMPORTED, ImportedValues(None, Cluster("c-8", 1)), ImportedValues(0.9), both],
    )
    assert table.keys == [2, 4 * 2], "each user once, both kinds together"
    assert imports.values([]) == (7, [])


def test_a_kind_that_is_not_active_is_not_read(table, imports):
    fill(table)
    activate(table, CLUSTER, "v1", 1)
    assert imports.values(["both"]) == (1, [ImportedValues(None, Cluster("c-7", 25))])
    assert table.keys == [2, 1]


def test_a_whole_number_is_a_probability_like_any_other(table, imports):
    fill(table)
    activate(table, BON, "v2", 1)
    _, (value,) = imports.values(["both"])
    assert isinstance(value.bon_score, float)


def test_pointers_are_read_again_once_they_are_two_seconds_old(table, imports, now):
    fill(table)
    activate(table, BON, "v1", 1)
    assert imports.values(["both"])[1] == [ImportedValues(0.75)]
    activate(table, BON, "v2", 2)
    now[0] += 1.99
    assert imports.values(["both"]) == (1, [ImportedValues(0.75)])
    now[0] += 0.02
    assert imports.values(["both"]) == (2, [ImportedValues(1.0)])
    now[0] += 1.99
    imports.values(["both"])
    assert table.keys == [2, 1, 1, 2, 1, 1]


def test_asked_for_the_generation_they_are_read_at_once(table, imports):
    fill(table)
    activate(table, BON, "v1", 1)
    assert imports.values(["both"])[0] == 1
    activate(table, BON, "v2", 2)
    assert imports.generation() == 2
    assert imports.values(["both"]) == (2, [ImportedValues(1.0)])


def test_what_was_taken_back_is_nothing_of_a_later_generation(table, imports):
    fill(table)
    activate(table, BON, None, 2)
    assert imports.values(["both"]) == (2, [NOTHING_IMPORTED])
    assert table.keys == [2]


def test_a_pointer_that_another_program_wrote_counts(table, imports):
    fill(table)
    table.put({"PK": "IMPORT#botOrNot", "SK": "ACTIVE", "importVersion": "v1", "note": "by hand"})
    assert imports.values(["both"]) == (0, [ImportedValues(0.75)])
