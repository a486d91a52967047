"""Imports on servers: the table in DynamoDB, the ARM cache in Redis; answers are lost, the table is out of reach."""

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
import redis

from fan_identity.domain.import_merge import fans_schema
from fan_identity.domain.imports import ImportKind, Pointer
from fan_identity.io.backends import open_cache, open_table
from fan_identity.io.import_versions import ImportConflictError, ImportVersions, Part

from ..imported_fans import (
    ANY,
    BON,
    CLUSTER,
    COMMAND,
    PREFIX,
    TIME,
    VALUE,
    cached,
    effect,
    sizes,
    some_rows,
    winners,
    written,
)

DYNAMODB = "http://127.0.0.1:18000"
CACHE = "redis://127.0.0.1:16390/9"
KINDS = (BON, CLUSTER)
FANS = 40


class Shop:
    """Scored fans in DynamoDB and Redis.

    Attributes:
        system: the servers.
        table: the fan identity table's address.
        fans: their ids.
    """

    def __init__(self, system: Any, cli: Any, store: Any, folder: Any) -> None:
        self.system, self._cli, self.folder = system, cli, folder
        self.table = system.table()
        self.fans = [f"{system.prefix}-{number}" for number in range(FANS)]
        self._redis = redis.Redis(port=16390, db=9, decode_responses=True)
        self._copy(store)

    def _copy(self, store: Any) -> None:
        lines = [
            {
                "activityId": f"a-{place}",
                "globalUserId": fan,
                "activityType": "login",
                "occurredAt": TIME - 1_000 * place,
            }
            for place, fan in enumerate([*self.fans, *self.fans[::2]])
        ]
        (self.folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert store.score(self.folder / "a.jsonl")["scored"] == len(lines)
        rows = [(v, json.loads(body)) for v, body in store.query("SELECT version, body FROM items WHERE sk = 'LATEST'")]
        table = open_table(self.table, "table", "fanIdentityTable")
        assert all(table.put_if_newer(rows))
        table.batch_put([json.loads(b) for (b,) in store.query("SELECT body FROM items WHERE sk LIKE 'SCORE#%'")])
        entries = store.query("SELECT key, version, value FROM arm_cache")
        open_cache(CACHE).put_if_newer([(key, version, json.loads(value)) for key, version, value in entries])

    def run(self, *arguments: object, table: str | None = None, code: int = 0) -> Any:
        """Runs ``fan-identity imports``; the result."""
        addresses = ("--table", table or self.table, "--cache", CACHE)
        beam = arguments.index("--") if "--" in arguments else len(arguments)
        result = self._cli("imports", *arguments[:beam], *addresses, *arguments[beam:], env=self.system.env)
        assert result.code == code, result
        return result

    def start(self, kind: str, path: Any, *more: object, table: str | None = None, code: int = 0) -> Any:
        flags = ("--dead-letters", table or self.table, *ANY)
        return self.run("start", COMMAND[kind], path, *flags, *more, table=table, code=code)

    def scores(self) -> dict[str, Any]:
        """Latest items, score items and cache entries, without what names a run."""
        found: dict[str, Any] = {}
        for prefix in ("LATEST", "SCORE#"):
            for item in self.system.items(self.table, prefix):
                plain = {
                    name: value for name, value in item.items() if name not in ("dateUpdated", "version", "requestId")
                }
                found[f"{item['PK']} {item['SK']}"] = plain
        for fan in self.fans:
            value = json.loads(self._redis.get(f"user:{fan}") or "null")
            found[fan] = {name: field for name, field in value.items() if name != "version"}
        return found

    def pointer(self, kind: str) -> Any:
        """The version that readers see."""
        found = [item for item in self.system.items(self.table, "ACTIVE") if item["PK"] == f"IMPORT#{kind}"]
        return found[0]["importVersion"] if found else None

    def version(self, kind: str) -> dict[str, Any]:
        """What readers find of the active version, by fan."""
        items = self.system.items(self.table, PREFIX[kind] + self.pointer(kind))
        return {item["PK"].removeprefix("USER#"): item[VALUE[kind]] for item in items}

    def check(self, models: dict[str, Any], bon: dict[str, Any], clusters: dict[str, Any]) -> None:
        """Latest items and cache follow the rule, stated once more."""
        found, size = self.scores(), sizes(clusters)
        for fan in self.fans:
            cluster = (clusters[fan][0], size[clusters[fan][0]]) if fan in clusters else None
            expected = effect(models[f"USER#{fan} LATEST"], bon[fan][0] if fan in bon else None, cluster)
            assert found[f"USER#{fan} LATEST"] == expected
            assert {name: value for name, value in found[fan].items() if name != "timestamp"} == cached(expected)
            repeated = {**expected, "SK": expected["scoreSK"]}
            del repeated["scoreSK"]
            assert found[f"USER#{fan} {expected['scoreSK']}"] == repeated

    def close(self) -> None:
        self._redis.delete(*(f"user:{fan}" for fan in self.fans))


@pytest.fixture
def shop(server, system, cli, store, tmp_path) -> Iterator[Shop]:
    for name in ("dynamodb", "redis"):
        server(name)
    made = Shop(system, cli, store, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("runner", ["direct", pytest.param("prism", marks=pytest.mark.slow)])
def test_imported_read_and_taken_back(shop, tmp_path, runner, request):
    flags: tuple[str, ...] = ()
    if runner == "prism":
        shop.system.use(prism=request.getfixturevalue("prism"))
        flags = ("--", "--runner=PrismRunner")
    models = shop.scores()
    strangers = [f"{shop.system.prefix}-stranger-{number}" for number in range(30)]
    rows = {kind: some_rows(kind, [*shop.fans[5:], *strangers], seed) for kind, seed in ((BON, 1), (CLUSTER, 2))}
    bon, clusters = (winners(kind, rows[kind]) for kind in KINDS)
    bad = [("", 0.5, TIME)]
    first = shop.start(
        BON, written(tmp_path / "b.parquet", BON, rows[BON] + bad), "--max-bad", "1", "--json", *flags, code=1
    )
    assert first.json["books"] == {"rows": 66, "bad": 1, "repeated": 0, "fans": 65, "unaccounted": 0}
    assert len(shop.system.letters(shop.table)) == 1
    assert shop.version(BON) == {fan: value for fan, (value, _) in bon.items()}
    shop.check(models, bon, {})
    one = shop.scores()
    shop.start(CLUSTER, written(tmp_path / "c.csv.zst", CLUSTER, rows[CLUSTER]), *flags)
    assert shop.version(CLUSTER) == {fan: value for fan, (value, _) in clusters.items()}
    shop.check(models, bon, clusters)
    shop.run("rollback", "cluster", *flags)
    assert shop.scores() == one
    shop.run("rollback", "bot-or-not")
    assert shop.scores() == models
    assert (shop.pointer(BON), shop.pointer(CLUSTER)) == (None, None)
    for kind in KINDS:
        assert len(shop.run("clean", COMMAND[kind], "--keep", "0", "--json").json["deleted"]) == 1
    for prefix in (*PREFIX.values(), "FANS#", "CHANGES#", "VERSION#"):
        assert shop.system.items(shop.table, prefix) == []


def test_lost_answers_make_no_second_import_and_no_false_alarm(shop, tmp_path, http_proxy):
    """Every kind of write is made and its answer lost, the pointer's and the lock's among them."""
    proxy = http_proxy(DYNAMODB)
    table = shop.table.replace(DYNAMODB, proxy.address)
    models = shop.scores()
    rng, lock, lost = random.Random(1), threading.Lock(), set[str]()

    def rule(operation: str, body: bytes) -> str | None:
        kind = next((name for name in (b"ACTIVE", b"LOCK#", b"VERSION#") if name in body), b"").decode()
        if operation in ("BatchGetItem", "GetItem", "Query", "DescribeTable"):
            return None
        with lock:
            first = f"{operation} {kind}" not in lost
            lost.add(f"{operation} {kind}")
        return "drop answer" if first or rng.random() < 0.05 else None

    proxy.rule = rule
    rows = some_rows(BON, shop.fans, 3)
    done = shop.start(BON, written(tmp_path / "b.csv", BON, rows), "--json", table=table)
    assert done.json["result"] == "active"
    assert any(name.endswith("ACTIVE") for name in lost)
    shop.check(models, winners(BON, rows), {})
    shop.run("rollback", "bot-or-not", table=table)
    assert shop.scores() == models


@pytest.mark.parametrize("after", ["compare", "some staged"])
def test_out_of_reach_in_the_middle_what_was_active_stays(shop, tmp_path, http_proxy, after):
    rows = {number: some_rows(BON, shop.fans, number, TIME + number) for number in range(2)}
    shop.start(BON, written(tmp_path / "0.csv", BON, rows[0]))
    before, seen = shop.scores(), shop.pointer(BON)
    proxy = http_proxy(DYNAMODB)
    table = shop.table.replace(DYNAMODB, proxy.address)
    allowed = {"compare": 0, "some staged": 4}[after]
    lock, staged = threading.Lock(), [0]

    def rule(operation: str, body: bytes) -> Any:
        if operation in ("BatchGetItem", "GetItem", "Query") or not (b"importChunk" in body or b"BON#" in body):
            return None
        with lock:
            staged[0] += 1
            refused = staged[0] > allowed
        return (
            (400, {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "no more"})
            if refused
            else None
        )

    proxy.rule = rule
    path = written(tmp_path / "1.csv", BON, rows[1])
    failed = shop.start(BON, path, table=table, code=2)
    assert len(failed.err_lines) == 1, failed
    assert (shop.scores(), shop.pointer(BON)) == (before, seen)
    assert shop.version(BON) == {fan: value for fan, (value, _) in winners(BON, rows[0]).items()}
    shop.start(BON, path)
    assert shop.version(BON) == {fan: value for fan, (value, _) in winners(BON, rows[1]).items()}
    assert len(shop.run("clean", "bot-or-not", "--keep", "2", "--json").json["deleted"]) == 1


def test_of_many_that_move_the_pointer_exactly_one_does(server, system):
    server("dynamodb")
    address = system.table()
    kind = ImportKind.CLUSTER
    for generation in range(4):
        seen = ImportVersions(open_table(address, "table", "fanIdentityTable"), kind).pointer()
        assert seen.generation == generation
        start = threading.Barrier(6)

        def move(number: int, seen: Pointer = seen, start: threading.Barrier = start) -> str | None:
            mine = ImportVersions(open_table(address, "table", "fanIdentityTable"), kind)
            start.wait()
            try:
                return mine.move(seen, f"v{number}", number).import_version
            except ImportConflictError:
                return None

        with ThreadPoolExecutor(6) as pool:
            moved = [version for version in pool.map(move, range(6)) if version is not None]
        assert moved == [
            ImportVersions(open_table(address, "table", "fanIdentityTable"), kind).pointer().import_version
        ]


def test_a_long_list_is_several_items_that_dynamodb_takes(server, system):
    server("dynamodb")
    kind = ImportKind.BOT_OR_NOT
    versions = ImportVersions(open_table(system.table(), "table", "fanIdentityTable"), kind)
    rng = random.Random(1)
    rows = [
        {"user": rng.randbytes(24).hex(), "value": rng.random(), "updatedAt": 1, "known": True} for _ in range(12_000)
    ]
    versions.put_bucket("v", Part.FANS, 3, pa.Table.from_pylist(rows, schema=fans_schema(kind)))
    found = versions.bucket("v", Part.FANS, 3)
    assert found is not None
    assert found.to_pylist() == rows
    versions.delete_bucket("v", 3)
    assert versions.bucket("v", Part.FANS, 3) is None
