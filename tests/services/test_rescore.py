"""Rescoring over DynamoDB: fans found by time, scored at a rate, newer live scores kept."""

import json

BEGIN_MS = 1_750_000_000_000
MINUTE_MS = 60_000


def message(fan: int, time_ms: int) -> bytes:
    activity = {"globalUserId": f"fan-{fan}", "activityId": f"a-{fan}", "activityType": "login", "occurredAt": time_ms}
    return json.dumps({**activity, "requestId": "r", "worker": "enqueueFromStream", "activity": activity}).encode()


def test_fans_of_a_time_are_scored_again_by_the_job_and_by_the_worker(cli, system, upstreams, server):
    for name in ("elasticmq", "dynamodb", "redis"):
        server(name)
    table = system.table()
    requests = system.queue(fifo=False)
    system.use(
        queue=system.queue() + "&wait=1",
        rescore_queue=requests + "&wait=1",
        table=table,
        dead_letters=table,
        cache="redis://127.0.0.1:16390/11",
        accounts=f"{upstreams.address}/accounts",
        model=f"{upstreams.address}/model/score?batch=64",
    )
    for fan in range(30):
        system.send(system.settings["queue"], message(fan, BEGIN_MS + fan * MINUTE_MS), group=f"g{fan}")
    assert cli("run", "scoreUsers", env=system.env).code == 0

    arguments = (
        "rescore",
        "--from",
        "2025-06-15T15:16:40Z",
        "--to",
        "2025-06-15T15:26:40Z",
        "--rate",
        "1000/s",
        "--json",
    )
    result = cli(*arguments, env=system.env)
    assert (result.code, result.json["counts"]["scored"], result.json["unaccounted"]) == (0, 10, 0), result
    assert rescored(system, table) == set(range(10, 20))
    before = system.items(table, "")
    again = cli(*arguments, env=system.env)
    assert (again.code, again.json["outcome"]) == (0, "nothing to do")
    assert system.items(table, "") == before

    body = {"rescoreId": "q", "scoredTo": BEGIN_MS + 5 * MINUTE_MS}
    system.send(requests, json.dumps(body).encode())
    counts = cli("run", "processRescoreEvents", "--json", env=system.env).json
    assert (counts["scored"], counts["requests"]) == (5, 1)
    assert rescored(system, table) == {*range(5), *range(10, 20)}


def rescored(system, table) -> set[int]:
    found = (item for item in system.items(table, "LATEST") if item["activityType"] == "rescore")
    return {int(item["globalUserId"].removeprefix("fan-")) for item in found}
