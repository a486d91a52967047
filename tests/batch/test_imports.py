"""Imports on a scored store: what scores become, taken back exactly, told in figures, whatever the files' form."""

import json
import random
import signal
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..imported_fans import (
    ANY,
    BON,
    CLUSTER,
    COMMAND,
    TIME,
    Importing,
    check_figures,
    check_scores,
    check_version,
    copy_of,
    effect,
    fans_of,
    items_of,
    packed,
    plain_comparison,
    pointer,
    scores_of,
    sizes,
    some_rows,
    tables_of,
    whole,
    winners,
    without_effect,
    written,
)

KINDS = (BON, CLUSTER)
TWO_WORKERS = ("--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


@dataclass
class Sale:
    """A sale of which the first half is scored.

    Attributes:
        store: where; to be copied.
        rest: a file of the other half.
        models: latest items as the model left them, by partition key.
        fans: who was scored, in an order of no meaning.
    """

    store: Any
    rest: Path
    models: dict[str, dict[str, Any]]
    fans: list[str]

    @property
    def by_fan(self) -> dict[str, dict[str, Any]]:
        return {item["globalUserId"]: item for item in self.models.values()}


@pytest.fixture(scope="module")
def scored(sale, store_at, tmp_path_factory) -> Sale:
    folder = tmp_path_factory.mktemp("scored")
    lines = sale(130, 20, seed=11)
    half = len(lines) // 2
    (folder / "first.jsonl").write_bytes(b"\n".join(lines[:half]) + b"\n")
    (folder / "rest.jsonl").write_bytes(b"\n".join(lines[half:]) + b"\n")
    store = store_at(folder / "fans.db")
    store.score(folder / "first.jsonl")
    models = scores_of(store).latest
    fans = sorted(item["globalUserId"] for item in models.values())
    random.Random(1).shuffle(fans)
    return Sale(store, folder / "rest.jsonl", models, fans)


@pytest.fixture
def imports(scored, store_at, tmp_path) -> Importing:
    return Importing(copy_of(scored.store, tmp_path / "fans.db", store_at), tmp_path)


@pytest.fixture
def nobody(make_store, tmp_path) -> Importing:
    """A store in which nobody was ever scored."""
    return Importing(make_store("nobody"), tmp_path)


def test_both_kinds_in_both_orders_and_back(scored, imports, store_at, tmp_path):
    """Scores follow the stated rule, fans in no file stay, and taking all back leaves every byte as it was."""
    files = {
        kind: some_rows(kind, [*scored.fans[:85], *(f"stranger-{number}" for number in range(140))], seed)
        for kind, seed in ((BON, 1), (CLUSTER, 2))
    }
    bon, clusters = (winners(kind, files[kind]) for kind in KINDS)
    assert {size >= 100 for size in sizes(clusters).values()} == {True, False}
    paths = {kind: imports.file(f"{kind}.csv", kind, rows) for kind, rows in files.items()}
    clean = scores_of(imports.store)
    other = Importing(copy_of(scored.store, tmp_path / "other.db", store_at), tmp_path)

    first = imports.start(BON, paths[BON])
    check_figures(first["comparison"], plain_comparison(BON, scored.by_fan, {}, bon, {}))
    assert first["followed"] == 85
    one = check_scores(imports.store, scored.models, bon, {})
    assert one.older == clean.older
    second = imports.start(CLUSTER, paths[CLUSTER])
    check_figures(second["comparison"], plain_comparison(CLUSTER, scored.by_fan, {}, clusters, bon))
    both = check_scores(imports.store, scored.models, bon, clusters)
    for kind, version in ((BON, bon), (CLUSTER, clusters)):
        check_version(imports.store, kind, version)
        assert whole(imports.store, kind)

    other.start(CLUSTER, paths[CLUSTER])
    check_scores(other.store, scored.models, {}, clusters)
    other.start(BON, paths[BON])
    assert scores_of(other.store) == both
    other.rollback(CLUSTER)
    assert scores_of(other.store) == one

    assert imports.rollback(CLUSTER) == {"rolledBack": second["importVersion"], "active": None, "followed": 85}
    assert scores_of(imports.store) == one
    imports.rollback(BON)
    assert scores_of(imports.store) == clean
    assert {key: value for key, value in tables_of(imports.store).items() if key not in ("items", "arm_cache")} == {
        key: value for key, value in tables_of(scored.store).items() if key not in ("items", "arm_cache")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_one_version_over_another_and_back_twice(scored, imports, kind):
    rng = random.Random(kind)
    first = some_rows(kind, scored.fans[:80], 3)
    second = some_rows(kind, scored.fans[20:], 4, TIME + 1_000)
    for fan, value, at in first[20:60]:  # the same as before, or older than what is stored
        same = rng.random() < 0.5
        second = [row for row in second if row[0] != fan] + [(fan, value if same else "c1", at)] * (kind == CLUSTER)
        second += [(fan, value if same else 0.77, at if same else at - 1)] * (kind == BON)
    stored = winners(kind, first)
    merged = winners(kind, second, stored)
    clean = scores_of(imports.store)
    a = imports.start(kind, imports.file("a.parquet", kind, first))
    a_scores = scores_of(imports.store)
    b = imports.start(kind, imports.file("b.jsonl", kind, second))
    check_figures(b["comparison"], plain_comparison(kind, scored.by_fan, stored, merged, {}))
    older = sum(at < stored[fan][1] for fan, _, at in second if fan in stored)
    assert b["comparison"]["older"] == older
    assert (older > 0) == (kind == BON)
    check_version(imports.store, kind, merged)
    check_scores(imports.store, scored.models, *((merged, {}) if kind == BON else ({}, merged)))
    assert b["books"] == {"rows": len(second), "bad": 0, "repeated": 0, "fans": len(merged), "unaccounted": 0}

    listed = imports.listed()
    assert [(record["importVersion"], record["state"]) for record in listed] == [
        (b["importVersion"], "active"),
        (a["importVersion"], "replaced"),
    ]
    assert listed[0]["comparison"] == b["comparison"]
    shown = imports.store.cli("imports", "show", a["importVersion"], *imports.store.flag, "--json").json
    assert (shown["state"], shown["followed"], shown["comparison"]) == ("replaced", True, a["comparison"])
    assert imports.listed("bot-or-not" if kind == CLUSTER else "cluster") == []

    assert imports.rollback(kind)["active"] == a["importVersion"]
    assert scores_of(imports.store) == a_scores
    check_version(imports.store, kind, stored)
    assert imports.rollback(kind)["active"] is None
    assert scores_of(imports.store) == clean
    assert [record["state"] for record in imports.listed()] == ["rolledBack", "rolledBack"]
    before = tables_of(imports.store)
    third = imports.store.cli("imports", "rollback", COMMAND[kind], *imports.store.flag)
    assert (third.code, third.err_lines) == (2, [f"error: no {kind} version is active: there is nothing to take back"])
    assert tables_of(imports.store) == before


def mixed_rows(kind: str, seed: int) -> list[tuple[str, Any, int]]:
    """Rows of sixty fans, a third of them repeated at the same and at other times."""
    rng = random.Random(seed)
    rows = [(fan, value, TIME + rng.randrange(3)) for fan, value, _ in some_rows(kind, map(str, range(60)), seed)]
    for fan, _, at in rng.sample(rows, 20):
        rows += [(fan, value, at + rng.choice((-1, 0, 1))) for _, value, _ in some_rows(kind, "abc", rng.randrange(99))]
    return rng.sample(rows, len(rows))


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (BON, "many files"),
        (CLUSTER, "many files"),
        pytest.param(CLUSTER, "two workers", marks=pytest.mark.slow),
        pytest.param(BON, "two workers", marks=pytest.mark.slow),
        (CLUSTER, "prism"),
    ],
)
def test_whatever_the_form_of_the_files_the_version_is_the_same(nobody, kind, form, request):
    rows = mixed_rows(kind, 5)
    expected = winners(kind, rows)
    flags: tuple[str, ...] = ()
    env = {}
    if form == "many files":
        names = ("a.csv", "b.jsonl", "c.parquet", "d.csv.gz", "e.jsonl.zst", "f.parquet", "g.csv.zst")
        (nobody.folder / "rows").mkdir()
        for number, name in enumerate(names):
            nobody.file(f"rows/{name}", kind, rows[number :: len(names)])
        files = [f"{nobody.folder}/rows/"]
    else:
        files = [nobody.file(f"{number}.csv", kind, rows[number::3]) for number in range(3)]
        flags = TWO_WORKERS if form == "two workers" else ("--", "--runner=PrismRunner")
        if form == "prism":
            env["FAN_IDENTITY_PRISM"] = request.getfixturevalue("prism")
    result = nobody.store.cli(
        "imports", "start", COMMAND[kind], *files, *nobody.store.flag, *ANY, "--json", *flags, env=env
    )
    assert result.code == 0, result
    assert result.json["books"] == {
        "rows": len(rows),
        "bad": 0,
        "repeated": len(rows) - len(expected),
        "fans": len(expected),
        "unaccounted": 0,
    }
    check_version(nobody.store, kind, expected)
    check_figures(result.json["comparison"], plain_comparison(kind, {}, {}, expected, {}))
    listed = packed(nobody.store, kind, result.json["importVersion"], "CHANGES")
    assert [row["user"] for row in listed] == sorted(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_writes_its_report_and_nothing_else(scored, imports, kind, tmp_path):
    imports.start(kind, imports.file("a.csv", kind, some_rows(kind, scored.fans[:50], 1)))
    before = tables_of(imports.store)
    report = tmp_path / "report.html"
    rows = some_rows(kind, scored.fans[25:], 9, TIME + 1)
    path = imports.file("b.csv", kind, [*rows, ("bad", "", TIME)])
    told = imports.start(kind, path, "--dry-run", "--max-bad", "1", "--report", report)
    assert (told["result"], told["comparison"]["totalBad"]) == ("dryRun", 1)
    stored = winners(kind, some_rows(kind, scored.fans[:50], 1))
    check_figures(told["comparison"], plain_comparison(kind, scored.by_fan, stored, winners(kind, rows), {}))
    assert "<html" in report.read_text().lower()
    assert tables_of(imports.store) == before
    assert not list(tmp_path.glob("fan-identity-*"))


def test_new_scores_carry_what_is_imported_and_the_import_stays_comparable(scored, imports, store_at, tmp_path):
    rows = {kind: some_rows(kind, scored.fans, 6) for kind in KINDS}
    bon, clusters = (winners(kind, rows[kind]) for kind in KINDS)
    for kind in KINDS:
        imports.start(kind, imports.file(f"{kind}.jsonl.gz", kind, rows[kind]))
    imports.store.score(scored.rest)
    twin = copy_of(scored.store, tmp_path / "twin.db", store_at)
    twin.score(scored.rest)
    models = scores_of(twin)
    assert models.latest != scored.models
    found = check_scores(imports.store, models.latest, bon, clusters)
    # Scores of the second half that are not the latest any more are under the imports as well.
    size = sizes(clusters)
    new = (
        models.older.keys()
        - scores_of(scored.store).older.keys()
        - {(pk, item["scoreSK"]) for pk, item in scored.models.items()}
    )
    assert len(new) > 100
    for pk, sk in new:
        fan = models.older[pk, sk]["globalUserId"]
        values = (bon[fan][0], (clusters[fan][0], size[clusters[fan][0]])) if fan in bon else (None, None)
        assert found.older[pk, sk] == effect(models.older[pk, sk], *values)
    imports.rollback(CLUSTER)
    imports.rollback(BON)
    back = scores_of(imports.store)
    assert (back.latest, back.repeated, back.cache) == (models.latest, models.repeated, models.cache)


def test_the_same_said_again_changes_nothing_and_the_same_files_are_refused(scored, imports):
    rows = some_rows(BON, scored.fans, 8)
    first = imports.start(BON, imports.file("a.csv", BON, rows))
    before = tables_of(imports.store)
    again = imports.start(BON, imports.file("later.csv", BON, [(fan, value, at + 5) for fan, value, at in rows]))
    assert (again["result"], again["replaced"]) == ("unchanged", first["importVersion"])
    assert tables_of(imports.store) == before


def test_while_another_import_runs_one_is_refused(scored, imports):
    path = imports.file("a.csv", BON, some_rows(BON, scored.fans, 8))
    held = {
        "PK": "LOCK#imports",
        "SK": "LOCK",
        "owner": "me",
        "run": "x",
        "acquiredAt": TIME,
        "expiresAt": 2**42,
        "token": 1,
    }
    with sqlite3.connect(imports.store.path) as connection:
        values = ("LOCK#imports", "LOCK", "000000000001", json.dumps(held))
        connection.execute(
            "INSERT INTO items (table_name, pk, sk, version, body) VALUES ('fanIdentityTable', ?, ?, ?, ?)", values
        )
    connection.close()
    before = tables_of(imports.store)
    for command in (
        ("start", "bot-or-not", path),
        ("rollback", "cluster"),
        ("follow", "cluster"),
        ("clean", "cluster"),
    ):
        result = imports.store.cli("imports", *command, *imports.store.flag)
        assert (result.code, len(result.err_lines)) == (3, 1), result
        assert "imports is being run by me since 2026-01-01" in result.err
    assert tables_of(imports.store) == before


def test_two_at_once_do_not_mix(scored, imports):
    rows = {kind: some_rows(kind, scored.fans, 8) for kind in KINDS}
    runs = [
        imports.store.cli.start("imports", "start", COMMAND[kind], path, *imports.store.flag, *ANY)
        for kind, path in ((kind, imports.file(f"{kind}.csv", kind, rows[kind])) for kind in KINDS)
    ]
    results = [run.wait() for run in runs]
    assert {result.code for result in results} in ({0}, {0, 3}), results
    active = {
        kind: winners(kind, rows[kind]) if result.code == 0 else {} for kind, result in zip(KINDS, results, strict=True)
    }
    check_scores(imports.store, scored.models, active[BON], active[CLUSTER])
    for kind in KINDS:
        assert (pointer(imports.store, kind)["importVersion"] is None) == (not active[kind])


def test_while_live_scores_come_in_an_import_and_its_rollback_leave_none_stale(scored, imports, until):
    """Scores in flight are under the imports that are active when all is quiet, in table and cache."""
    store, cli = imports.store, imports.store.cli
    bon, clusters = (some_rows(kind, scored.fans, 12) for kind in KINDS)
    paths = [imports.file(f"{kind}.csv", kind, rows) for kind, rows in ((BON, bon), (CLUSTER, clusters))]
    enqueued = cli("run", "enqueueFromStream", "--source", scored.rest, *store.flag)
    assert enqueued.code in (0, 1)
    waiting = store.waiting()
    assert waiting > 500
    env = {"FAN_IDENTITY_BATCH_SIZE": "5"}
    live = cli.start("run", "scoreUsers", "--streaming", *store.flag, env=env)
    live.until(lambda: store.waiting() < waiting, "it scores")
    first = cli.start("imports", "start", "bot-or-not", paths[0], *store.flag, *ANY).wait()
    assert first.code == 0, first
    second = cli("imports", "start", "cluster", paths[1], *store.flag, *ANY)
    assert second.code == 0, second
    beside = store.waiting()
    back = cli("imports", "rollback", "bot-or-not", *store.flag)
    assert back.code == 0, back
    live.until(lambda: store.waiting() == 0, "all is scored")
    live.signal(signal.SIGTERM)
    assert live.wait().code == 0
    assert beside < waiting
    found = scores_of(store)
    newest = dict(store.query("SELECT pk, max(sk) FROM items WHERE sk LIKE 'SCORE#%' GROUP BY pk"))
    assert {pk: item["scoreSK"] for pk, item in found.latest.items()} == newest
    models = {pk: without_effect(item) for pk, item in found.latest.items()}
    check_scores(store, models, {}, winners(CLUSTER, clusters))


HOSTILE = (
    "a#b", "USER#x", "LATEST", "sha256:" + "0" * 64, "\u202egnirts", "\N{PILE OF POO}", "e\u0301", "\u00e9", "A", "a",
    "nul\0in", "x" * 10_000, "\ufeff", "' OR 1=1", "%", "\r\nfan", "'=cmd|' /C calc'!A0", '"', "\u00a0x", "\ud7ff",
)  # fmt: skip


def test_hostile_ids_and_look_alike_clusters_stay_apart(cli, store, tmp_path):
    lines = [
        {
            "activityId": f"h-{number}",
            "globalUserId": fan,
            "activityType": "login",
            "occurredAt": "2026-01-02T00:00:00Z",
        }
        for number, fan in enumerate(HOSTILE)
    ]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert store.score(tmp_path / "h.jsonl")["scored"] == len(HOSTILE)
    models = scores_of(store).latest
    assert len(models) == len(HOSTILE)
    imports = Importing(store, tmp_path)
    names = ("C", "c", "\u00e9", "e\u0301", "\N{PILE OF POO}" * 256, "c" * 256, "\u202ec", " c")
    clusters = [(fan, names[number % len(names)], TIME) for number, fan in enumerate(HOSTILE)]
    scores = [(fan, number / len(HOSTILE), TIME) for number, fan in enumerate(HOSTILE)]
    imports.start(CLUSTER, imports.file("c.jsonl", CLUSTER, clusters))
    imports.start(BON, imports.file("b.parquet", BON, scores))
    size = sizes(winners(CLUSTER, clusters))
    found = {item["globalUserId"]: item for item in scores_of(store).latest.values()}
    for (fan, cluster, _), (_, score, _) in zip(clusters, scores, strict=True):
        assert (found[fan]["clusterId"], found[fan]["clusterSize"], found[fan]["bonScore"]) == (
            cluster,
            size[cluster],
            score,
        )
    shown = cli("imports", "list", *store.flag)
    assert (shown.code, shown.err) == (0, "")
    imports.rollback(CLUSTER)
    imports.rollback(BON)
    assert scores_of(store).latest == models


def test_clean_keeps_what_is_needed_and_deletes_every_item_of_the_rest(nobody):
    kind = BON
    versions = [
        nobody.start(
            kind, nobody.file(f"{n}.csv", kind, [(str(fan), (fan + n) / 40, TIME + n) for fan in range(20 + n)])
        )
        for n in range(4)
    ]
    names = [version["importVersion"] for version in versions]
    before = {name: fans_of(nobody.store, kind, name) for name in names}
    done = nobody.store.cli("imports", "clean", "bot-or-not", "--keep", "0", *nobody.store.flag, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json == {"deleted": names[1::-1]}
    for name in names[:2]:
        assert (
            nobody.store.number("SELECT count(*) FROM items WHERE pk LIKE ? OR sk LIKE ?".replace("?", f"'%{name}'"))
            == 0
        )
    for name in names[2:]:
        assert fans_of(nobody.store, kind, name) == before[name]
    assert nobody.rollback(kind)["active"] == names[2]
    state = tables_of(nobody.store)
    again = nobody.store.cli("imports", "rollback", "bot-or-not", *nobody.store.flag)
    assert (again.code, len(again.err_lines)) == (2, 1)
    assert f"version {names[1]} was deleted" in again.err
    assert tables_of(nobody.store) == state
    assert items_of(nobody.store, "ACTIVE")[f"IMPORT#{kind}"]["importVersion"] == names[2]


def test_files_without_times_are_as_new_as_the_files(nobody, tmp_path):
    path = written(tmp_path / "a.csv", BON, [("a", 0.5, TIME)])
    path.write_bytes(b"globalUserId,bonScore\na,0.5\n")
    import os  # noqa: PLC0415

    os.utime(path, (TIME / 1_000, TIME / 1_000))
    nobody.start(BON, path)
    assert fans_of(nobody.store, BON, pointer(nobody.store, BON)["importVersion"]) == {
        "USER#a": {"bonScore": 0.5, "updatedAt": "2026-01-01T00:00:00.000Z"}
    }
