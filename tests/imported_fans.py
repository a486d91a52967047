"""What the tests of imports share: files of any format, the rules in plain Python once more, what a store holds.

The rules here are written from what the product promises, not from its code: on decimals, fan by fan.
"""

import base64
import csv
import gzip
import io
import json
import math
import random
import re
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from pyarrow import ipc

BON, CLUSTER = "botOrNot", "cluster"
COMMAND = {BON: "bot-or-not", CLUSTER: "cluster"}
VALUE = {BON: "bonScore", CLUSTER: "clusterId"}
PREFIX = {BON: "BON#", CLUSTER: "CLUSTER#"}
TIME = 1_767_225_600_000  # 2026-01-01
ANY = ("--max-unknown", "1", "--max-removed", "1", "--max-arm-changes", "1")
"""No thresholds but that on bad rows."""

Row = tuple[str, Any, int]
"""A fan, a value, and when it was set, epoch milliseconds."""


# Files


def encoded(kind: str, rows: Sequence[Row], name: str) -> bytes:
    """A file's bytes, in the format that its name says."""
    base, _, packing = name.rpartition(".")
    if packing in ("gz", "zst"):
        plain = encoded(kind, rows, base)
        return gzip.compress(plain, mtime=0) if packing == "gz" else zstandard.compress(plain)
    columns = ("globalUserId", VALUE[kind], "updatedAt")
    if packing == "jsonl":
        return b"".join(json.dumps(dict(zip(columns, row, strict=True))).encode() + b"\n" for row in rows)
    if packing == "parquet":
        table = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows])
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=max(len(rows) // 3, 1))
        return sink.getvalue()
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    return text.getvalue().encode()


def written(path: Path, kind: str, rows: Sequence[Row]) -> Path:
    """Writes a file of rows."""
    path.write_bytes(encoded(kind, rows, path.name))
    return path


def some_rows(kind: str, fans: Iterable[str], seed: int, at: int = TIME) -> list[Row]:
    """A random value for each fan: scores on both sides of every limit, clusters of all sizes from 1 up."""
    rng = random.Random(seed)
    limits = (0.0, 0.4999, 0.5, 0.7499, 0.75, 0.8999, 0.9, 1.0)
    rows: list[Row] = []
    for fan in fans:
        score = rng.choice(limits) if rng.random() < 0.3 else round(rng.random(), 4)
        rows.append((fan, score if kind == BON else f"c{int(rng.paretovariate(1.1))}", at))
    return rows


# Rules


def winners(kind: str, rows: Iterable[Row], stored: Mapping[str, tuple[Any, int]] | None = None) -> dict[str, Any]:
    """By fan (value, time): the newest row; of two at once the riskier score or first cluster; never an older one."""
    best: dict[str, tuple[Any, int]] = {}
    for fan, value, at in rows:
        if fan not in best or at > best[fan][1]:
            best[fan] = (value, at)
        elif at == best[fan][1]:
            best[fan] = ((max if kind == BON else min)(value, best[fan][0]), at)
    for fan, (value, at) in (stored or {}).items():
        if fan in best and best[fan][1] < at:
            best[fan] = (value, at)
    return best


def sizes(version: Mapping[str, tuple[Any, int]]) -> Counter[str]:
    """Clusters' sizes."""
    return Counter(cluster for cluster, _ in version.values())


def effect(item: Mapping[str, Any], bon: float | None, cluster: tuple[str, int] | None) -> dict[str, Any]:
    """A score item as the model left it, under imports."""
    if bon is None and cluster is None:
        return dict(item)
    assert item["clusterId"] is None and "model" not in item
    after = json.loads(json.dumps(item))
    score, arm = Decimal(str(item["accountScore"])), item["armRisk"]
    reasons = []
    if bon is not None:
        after["bonScore"] = bon
        if bon >= 0.5:
            points = (40 * (2 * Decimal(str(bon)) - 1)).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
            reasons.append(("BOT_OR_NOT_IMPORT", bon, points))
        arm = max([arm, *(level for least, level in ((0.5, 3), (0.75, 4), (0.9, 5)) if bon >= least)])
    if cluster is not None:
        after["clusterId"], after["clusterSize"] = cluster
        size = cluster[1]
        if size >= 5:
            reasons.append(("CLUSTER_SIZE", size, Decimal(20 if size >= 100 else 10 if size >= 20 else 5)))
        arm = min(arm + (size >= 20), 5)
    for code, value, points in reasons:
        taken = min(points, score)
        score -= taken
        after["reasons"].append({"code": code, "value": value, "points": -float(taken) if taken else 0.0})
    after["accountScore"], after["armRisk"] = float(score), arm
    after["model"] = {name: item[name] for name in ("accountScore", "armRisk", "bonScore")}
    after["model"]["reasons"] = len(item["reasons"])
    return after


def without_effect(item: Mapping[str, Any]) -> dict[str, Any]:
    """A score item as the model left it."""
    plain = {name: value for name, value in item.items() if name not in ("model", "clusterSize")}
    if "model" in item:
        kept = item["model"]["reasons"]
        plain |= {name: item["model"][name] for name in ("accountScore", "armRisk", "bonScore")}
        plain |= {"clusterId": None, "reasons": item["reasons"][:kept]}
    return plain


def cached(item: Mapping[str, Any]) -> dict[str, Any]:
    """A fan's entry in the ARM cache."""
    return {
        "global_user_id": item["globalUserId"],
        "arm_risk": item["armRisk"],
        "score_date": item["occurredAt"][:10],
        "modelVersion": item["modelVersion"],
        "reasons": [reason["code"] for reason in item["reasons"]],
    }


# What a store holds


def tables_of(store: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in a store but the lock: every row of every table."""
    names = [name for (name,) in store.query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    assert "items" in names
    found = {name: sorted(store.query(f"SELECT * FROM {name}"), key=repr) for name in names}
    found["items"] = [row for row in found["items"] if not row[1].startswith("LOCK#")]
    return found


def unlock(store: Any) -> None:
    """Takes away the lock of a killed run, which would end by itself after half a minute."""
    with sqlite3.connect(store.path, timeout=60) as connection:
        connection.execute("DELETE FROM items WHERE pk LIKE 'LOCK#%'")
    connection.close()


def items_of(store: Any, sk: str) -> dict[str, dict[str, Any]]:
    """Items by partition key, those whose sort key is like ``sk``; the newest of each partition."""
    return {
        pk: json.loads(body) for pk, body in store.query("SELECT pk, body FROM items WHERE sk LIKE ? ORDER BY sk", sk)
    }


def pointer(store: Any, kind: str) -> dict[str, Any]:
    """The pointer to the active version, as readers get it."""
    rows = store.query("SELECT body FROM items WHERE pk = ? AND sk = 'ACTIVE'", f"IMPORT#{kind}")
    return json.loads(rows[0][0]) if rows else {"importVersion": None, "generation": 0}


def fans_of(store: Any, kind: str, version: str) -> dict[str, dict[str, Any]]:
    """By partition key, the value of every fan in a version, as readers get them."""
    sk = PREFIX[kind] + version
    return {
        pk: {name: value for name, value in json.loads(body).items() if name not in ("PK", "SK", "type")}
        for pk, body in store.query("SELECT pk, body FROM items WHERE sk = ?", sk)
    }


def packed(store: Any, kind: str, version: str, part: str) -> list[dict[str, Any]]:
    """The rows of a version's packed lists, sorted by fan."""
    query = "SELECT body FROM items WHERE pk = ? AND sk LIKE ?"
    rows: list[dict[str, Any]] = []
    for (body,) in store.query(query, f"IMPORT#{kind}#{version}", f"{part}#%"):
        rows += ipc.open_stream(base64.b64decode(json.loads(body)["packed"])).read_all().to_pylist()
    return sorted(rows, key=lambda row: row["user"])


def whole(store: Any, kind: str) -> bool:
    """Whether the active version has every fan it is said to have; True where none is active."""
    version = pointer(store, kind)["importVersion"]
    if version is None:
        return True
    listed = {row["user"] for row in packed(store, kind, version, "FANS")}
    record = json.loads(
        store.query("SELECT body FROM items WHERE pk = ? AND sk = ?", f"IMPORT#{kind}", f"VERSION#{version}")[0][0]
    )
    return len(listed) == record["comparison"]["fans"] == len(fans_of(store, kind, version))


@dataclass
class Scores:
    """Scores of a store.

    Attributes:
        latest: by partition key, without what names a run.
        repeated: likewise, the score item that each repeats.
        older: every other score item by (PK, SK).
        cache: by key.
        versions: of latest items and of cache entries, which newer-wins compares, by user.
    """

    latest: dict[str, dict[str, Any]]
    repeated: dict[str, dict[str, Any]]
    older: dict[tuple[str, str], dict[str, Any]]
    cache: dict[str, dict[str, Any]]
    versions: dict[str, tuple[str, str]] = field(compare=False)  # these tell how often imports came and went


def scores_of(store: Any) -> Scores:
    """The scores of a store; each latest item must repeat one, in cache and table alike."""
    latest: dict[str, dict[str, Any]] = {}
    scores: dict[tuple[str, str], dict[str, Any]] = {}
    versions: dict[str, str] = {}
    query = "SELECT pk, sk, version, body FROM items WHERE sk = 'LATEST' OR sk LIKE 'SCORE#%'"
    for pk, sk, version, body in store.query(query):
        item = json.loads(body)
        item.pop("dateUpdated")
        item.pop("requestId")
        if sk == "LATEST":
            latest[pk], versions["user:" + pk.removeprefix("USER#")] = item, version
        else:
            scores[pk, sk] = item
    repeated = {pk: scores.pop((pk, item["scoreSK"])) for pk, item in latest.items()}
    rows = store.query("SELECT key, version, value FROM arm_cache")
    cache = {key: json.loads(value) for key, _, value in rows}
    both = {key: (versions[key], version) for key, version, _ in rows}
    return Scores(latest, repeated, scores, cache, both)


def check_scores(
    store: Any, models: Mapping[str, Mapping[str, Any]], bon: Mapping[str, Any], clusters: Mapping[str, Any]
) -> Scores:
    """Every fan's latest score, the item it repeats and the cache say what the rule says of what the model said.

    Args:
        store: to look into.
        models: every fan's latest item as the model left it, by partition key.
        bon: the active bot-or-not version, as ``winners`` has it.
        clusters: the active clusters.
    """
    found = scores_of(store)
    size = sizes(clusters)
    expected: dict[str, dict[str, Any]] = {}
    for pk, item in models.items():
        fan = item["globalUserId"]
        cluster = (clusters[fan][0], size[clusters[fan][0]]) if fan in clusters else None
        expected[pk] = effect(item, bon[fan][0] if fan in bon else None, cluster)
    assert found.latest == expected
    for pk, item in expected.items():
        repeats = {**item, "SK": item["scoreSK"]}
        del repeats["scoreSK"]
        assert found.repeated[pk] == repeats
    timeless = {key: {n: v for n, v in value.items() if n != "timestamp"} for key, value in found.cache.items()}
    assert timeless == {"user:" + pk.removeprefix("USER#"): cached(item) for pk, item in expected.items()}
    assert all(latest == cache for latest, cache in found.versions.values()), "table and cache are of one version"
    return found


def check_version(store: Any, kind: str, expected: Mapping[str, tuple[Any, int]]) -> None:
    """The active version is what readers find, fan by fan, and what its packed lists say."""
    version = pointer(store, kind)["importVersion"]
    assert version is not None
    size = sizes(expected)
    fans = fans_of(store, kind, version)
    assert {pk: item[VALUE[kind]] for pk, item in fans.items()} == {
        f"USER#{fan}": v for fan, (v, _) in expected.items()
    }
    if kind == CLUSTER:
        assert all(item["clusterSize"] == size[item["clusterId"]] for item in fans.values())
    listed = packed(store, kind, version, "FANS")
    assert {row["user"]: (row["value"], row["updatedAt"]) for row in listed} == dict(expected)


# Figures


def plain_comparison(
    kind: str,
    models: Mapping[str, Mapping[str, Any]],
    before: Mapping[str, tuple[Any, int]],
    after: Mapping[str, tuple[Any, int]],
    other: Mapping[str, tuple[Any, int]],
) -> dict[str, Any]:
    """What a comparison must say, counted fan by fan.

    Args:
        kind: of the import.
        models: latest items as the model left them, by fan.
        before: the active version.
        after: the new one.
        other: the active version of the other kind.
    """

    def values(version: Mapping[str, tuple[Any, int]], of: str, fan: str) -> Any:
        if fan not in version:
            return None
        return version[fan][0] if of == BON else (version[fan][0], sizes(version)[version[fan][0]])

    arm = [[0] * 5 for _ in range(5)]
    numbers: Counter[str] = Counter()
    for fan in {*before, *after}:
        old, new = values(before, kind, fan), values(after, kind, fan)
        numbers["added" if old is None else "removed" if new is None else "unchanged" if old == new else "changed"] += 1
        if old != new and fan in models:
            beside = values(other, CLUSTER if kind == BON else BON, fan)
            pair = [(value, beside) if kind == BON else (beside, value) for value in (old, new)]
            was, becomes = (effect(models[fan], *values)["armRisk"] for values in pair)
            arm[was - 1][becomes - 1] += 1
    figures = {name: numbers[name] for name in ("added", "removed", "changed", "unchanged")}
    figures |= {"fans": len(after), "unknown": sum(fan not in models for fan in after), "arm": arm}
    figures |= {"valuesBefore": _classes(kind, before), "valuesAfter": _classes(kind, after)}
    if kind == CLUSTER:
        figures["clusters"] = _cluster_changes(before, after)
    return figures


def _classes(kind: str, version: Mapping[str, tuple[Any, int]]) -> list[int]:
    size = sizes(version)
    counts: Counter[int] = Counter(
        min(int(Decimal(str(value)) * 10), 9) if kind == BON else math.floor(math.log2(size[value]))
        for value, _ in version.values()
    )
    return [counts[number] for number in range(10 if kind == BON else 21)]


def _cluster_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, int]:
    new_of: dict[str, set[str]] = defaultdict(set)
    old_of: dict[str, set[str]] = defaultdict(set)
    for fan in before.keys() & after.keys():
        new_of[before[fan][0]].add(after[fan][0])
        old_of[after[fan][0]].add(before[fan][0])
    return {
        "before": len(sizes(before)),
        "after": len(sizes(after)),
        "split": sum(len(several) > 1 for several in new_of.values()),
        "merged": sum(len(several) > 1 for several in old_of.values()),
    }


def check_figures(comparison: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """A comparison as ``--json`` prints it says what ``plain_comparison`` counted."""
    assert {name: comparison[name] for name in expected if name != "clusters"} == {
        name: value for name, value in expected.items() if name != "clusters"
    }
    if "clusters" in expected:
        assert {name: comparison["clusters"][name] for name in expected["clusters"]} == expected["clusters"]


# Commands


@dataclass
class Importing:
    """A store that is imported into."""

    store: Any
    folder: Path

    def file(self, name: str, kind: str, rows: Sequence[Row]) -> Path:
        """A file of rows in the test's folder."""
        return written(self.folder / name, kind, rows)

    def start(self, kind: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        """Imports files with no thresholds; what it printed."""
        result = self.store.cli("imports", "start", COMMAND[kind], *self.store.flag, *ANY, "--json", *arguments)
        assert result.code == code, result
        return json.loads(result.text)

    def rollback(self, kind: str) -> dict[str, Any]:
        """Takes the active version back."""
        result = self.store.cli("imports", "rollback", COMMAND[kind], *self.store.flag, "--json")
        assert (result.code, result.err) == (0, ""), result
        return result.json

    def listed(self, *kind: str) -> list[dict[str, Any]]:
        """``imports list --json``."""
        result = self.store.cli("imports", "list", *kind, *self.store.flag, "--json")
        assert (result.code, result.err) == (0, ""), result
        return [json.loads(line) for line in result.text.splitlines()]


def copy_of(store: Any, path: Path, store_at: Callable[[Path], Any]) -> Any:
    """A copy of a store nobody has open."""
    for end in ("", "-wal"):
        source = store.path.with_name(store.path.name + end)
        if source.exists():
            shutil.copy(source, path.with_name(path.name + end))
    return store_at(path)


VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
