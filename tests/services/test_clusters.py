"""Clusters built on from the active version of a table in DynamoDB."""

import json

import pyarrow.parquet as pq
import pytest

from fan_identity.io.clusters import cluster_files

from ..imported_fans import ANY

UNREACHABLE = "dynamodb://fans?endpoint=http://127.0.0.1:9&region=eu-central-1"


@pytest.fixture
def build(cli, system, tmp_path):
    def built(folder, number, *arguments, code=0):
        """Clusters of pairs of fans, the last one of three: (fan → cluster id, what was printed)."""
        links = tmp_path / f"{folder}.jsonl"
        rows = [{"globalUserId": f"fan-{one}", "deviceId": f"d{min(one, number - 2) // 2}"} for one in range(number)]
        links.write_text("".join(json.dumps(row) + "\n" for row in rows))
        arguments = ("--to", tmp_path / folder, "--json", *arguments)
        result = cli("clusters", "build", links, *arguments, env=system.env)
        assert result.code == code, result
        if code:
            return {}, result
        table = [row for path in cluster_files(tmp_path / folder) for row in pq.read_table(path).to_pylist()]
        return {row["globalUserId"]: row["clusterId"] for row in table}, result.json

    return built


def test_ids_go_on_from_the_active_version(server, system, build, cli, tmp_path):
    server("dynamodb")
    table = system.table()
    _, result = build("none", 41, "--previous", "active", "--table", table, code=2)
    assert "no active cluster version; leave --previous out the first time" in result.err
    first, _ = build("monday", 41)
    addresses = ("--table", table, "--dead-letters", table, "--cache", f"sqlite:///{tmp_path}/cache.db")
    imported = cli("imports", "start", "cluster", f"{tmp_path}/monday/", *addresses, *ANY, env=system.env)
    assert imported.code == 0, imported
    second, told = build("tuesday", 43, "--previous", "active", "--table", table)
    assert told["previous"] == {"clusters": 20, "same": 19, "split": 1}
    assert {fan: second[fan] for fan in first if fan != "fan-40"} == {
        fan: first[fan] for fan in first if fan != "fan-40"
    }
    _, result = build("other", 41, "--previous", "active", "--table", UNREACHABLE, code=3)
    assert len(result.err_lines) == 1
