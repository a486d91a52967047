"""Clusters from links to the table and back: what is built is imported as it is, and the next build goes on from it."""

import gzip
import json

import pyarrow.parquet as pq
import pytest

from fan_identity.io.clusters import cluster_files

from ..imported_fans import CLUSTER, TIME, Importing, pointer

TWO_WORKERS = ("--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


@pytest.fixture
def imports(make_store, tmp_path):
    return Importing(make_store(), tmp_path)


@pytest.fixture
def build(cli, tmp_path):
    """Builds clusters of fans by device into a folder: (fan → cluster id, what was printed)."""

    def built(folder, devices, *arguments, code=0, **options):
        rows = [{"globalUserId": fan, "deviceId": device} for device, fans in devices.items() for fan in fans]
        links = tmp_path / f"{folder}.jsonl.gz"
        links.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        result = cli("clusters", "build", links, "--to", tmp_path / folder, "--json", *arguments, **options)
        assert result.code == code, result
        return clusters_of(tmp_path / folder), result.json

    return built


def clusters_of(folder):
    rows = [row for path in cluster_files(folder) for row in pq.read_table(path).to_pylist()]
    return {row["globalUserId"]: row["clusterId"] for row in rows}


def active_of(store):
    """What readers find of the active version: the fans' own items."""
    version = pointer(store, CLUSTER)["importVersion"]
    found = store.query("SELECT pk, body FROM items WHERE sk = ?", f"CLUSTER#{version}")
    return {pk.removeprefix("USER#"): json.loads(body)["clusterId"] for pk, body in found}


def fans(letters):
    return [f"fan-{letter}" for letter in letters]


FIRST = {"d1": fans("abcd"), "d2": fans("ef"), "d3": fans("gh"), "d4": fans("xy")}
THEN = {"d1": fans("abc"), "d2": fans("defgh"), "d5": fans("x"), "d6": fans("y"), "d7": fans("zu")}


def test_a_build_is_imported_and_the_next_goes_on_from_the_active_version(imports, build, tmp_path):
    first, _ = build("monday", FIRST)
    (file,) = imports.start(CLUSTER, f"{tmp_path}/monday/")["files"]
    assert file == f"{tmp_path}/monday/clusters/part-00000-of-00001.parquet"
    assert active_of(imports.store) == first

    second, told = build("tuesday", THEN, "--previous", "active", "--table", imports.store.address)
    assert second["fan-a"] == second["fan-c"] == first["fan-a"], "the larger part of a split keeps the id"
    assert second["fan-d"] == second["fan-h"], "what merged is one"
    assert second["fan-e"] in (first["fan-e"], first["fan-g"]), "under an id of what merged"
    assert second["fan-z"] not in first.values(), "new fans have a new id"
    assert told["previous"] == {"clusters": 4, "split": 1, "merged": 3, "ended": 1}
    lines = (tmp_path / "tuesday/_lineage.jsonl").read_text().splitlines()
    lineage = {one["clusterId"]: one for one in map(json.loads, lines)}
    assert lineage.keys() == set(first.values())
    assert lineage[first["fan-a"]]["to"] == [[first["fan-a"], 3], [second["fan-e"], 1]]
    ended = lineage[first["fan-x"]]
    assert (ended["fans"], ended["left"], ended.get("to")) == (2, 2, None)

    by_files, _ = build("files", THEN, "--previous", tmp_path / "monday")
    assert by_files.keys() == second.keys()
    kept = {fan for fan, cluster in second.items() if cluster in first.values()}
    assert {fan: by_files[fan] for fan in kept} == {fan: second[fan] for fan in kept}, "files and table say the same"

    # What the store says goes on, also where the environment names it.
    imports.start(CLUSTER, f"{tmp_path}/tuesday/")
    third, told = build("wednesday", THEN, "--previous", "active", env={"FAN_IDENTITY_STORE": imports.store.address})
    assert third == second
    assert told["previous"] == {"clusters": 3, "same": 3}


def test_every_bucket_is_read_by_several_processes(imports, build, tmp_path):
    pairs = {f"d{number}": [f"one-{number}", f"two-{number}"] for number in range(1_000)}
    first, _ = build("first", pairs)
    imports.start(CLUSTER, f"{tmp_path}/first/")
    again, told = build("again", pairs, "--previous", "active", "--table", imports.store.address, *TWO_WORKERS)
    assert again == first
    assert told["previous"] == {"clusters": 1_000, "same": 1_000}


def test_clusters_under_review_are_not_imported(imports, build, tmp_path):
    first, told = build("monday", FIRST, "--review-size", "3", code=1)
    assert [one["clusterId"] for one in told["review"]] == [first["fan-a"]]
    imports.start(CLUSTER, f"{tmp_path}/monday/")
    assert active_of(imports.store).keys() == first.keys() - set(fans("abcd"))
    imports.start(CLUSTER, f"{tmp_path}/monday/", f"{tmp_path}/monday/_review/")
    assert active_of(imports.store) == first, "unless a person says so"


def test_where_nobody_shares_there_is_nothing_to_import(imports, build, tmp_path):
    assert build("monday", {"d1": fans("a"), "d2": fans("b")})[0] == {}
    result = imports.store.cli("imports", "start", "cluster", f"{tmp_path}/monday/", *imports.store.flag)
    assert (result.code, "its files have no rows; nothing was imported" in result.err) == (2, True), result


def test_what_a_killed_build_leaves_is_no_result(imports, build, cli, until, tmp_path):
    folder = tmp_path / "monday"
    links = tmp_path / "many.csv"
    rows = "".join(f"fan-{number},d{number // 2}\n" for number in range(200_000))
    links.write_text(f"globalUserId,deviceId\n{rows}")
    killed = cli.start("clusters", "build", links, "--to", folder)
    until(lambda: list(folder.glob("_unfinished-*")), "the build to begin")
    killed.kill()
    assert [path.name[:12] for path in folder.iterdir()] == ["_unfinished-"]
    # As it is where a run is killed between writing its files and giving them their names.
    build("other", FIRST)
    (left,) = folder.iterdir()
    (left / "clusters").mkdir(exist_ok=True)
    (tmp_path / "other/clusters/part-00000-of-00001.parquet").rename(left / "clusters/part-00000-of-00001.parquet")
    result = cli("imports", "start", "cluster", f"{folder}/", *imports.store.flag)
    assert (result.code, "holds no file to import" in result.err) == (2, True), result
    first, _ = build("monday", THEN)
    imports.start(CLUSTER, f"{folder}/")
    assert active_of(imports.store) == first


def test_a_build_that_fails_leaves_nothing(cli, tmp_path):
    whole = gzip.compress(b"".join(b'{"globalUserId": "%d", "deviceId": "d"}\n' % one for one in range(200_000)))
    (tmp_path / "l.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    result = cli("clusters", "build", tmp_path / "l.jsonl.gz", "--to", tmp_path / "out")
    assert (result.code, len(result.err.splitlines())) == (2, 1), result
    assert "l.jsonl.gz: is cut off" in result.err
    assert list((tmp_path / "out").iterdir()) == []


def test_where_no_version_is_active_the_remedy_is_said(imports, cli, tmp_path):
    (tmp_path / "l.csv").write_text("globalUserId,deviceId\na,d1\nb,d1\n")
    imports.start(CLUSTER, imports.file("c.csv", CLUSTER, [("a", "c1", TIME)]))
    imports.rollback(CLUSTER)
    missing = f"sqlite:///{tmp_path}/missing.db"
    for arguments, said in (
        (("--previous", "active", "--table", imports.store.address), "leave --previous out the first time"),
        (("--previous", "active", "--table", missing), "missing.db"),
        (("--previous", "active"), "--table"),
        (("--table", imports.store.address), "add --previous active"),
        (("--previous", "elsewhere"), "no such file or folder"),
    ):
        command = ("clusters", "build", tmp_path / "l.csv", "--to", tmp_path / "out", *arguments)
        result = cli(*command, env={"FAN_IDENTITY_STORE": "", "FAN_IDENTITY_TABLE": ""})
        assert (result.code, len(result.err_lines), said in result.err) == (2, 1, True), result
    assert not (tmp_path / "missing.db").exists()
    assert not (tmp_path / "out").exists(), "nothing is made before everything is checked"
