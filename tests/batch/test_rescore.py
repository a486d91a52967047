"""Rescoring as a job: whom, at which rate, killed and resumed, and beside live scores."""

import contextlib
import json
import signal
import sqlite3
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from fan_identity.batch.rescore import PARTS, Rescore, rescore
from fan_identity.domain.imports import bucket_of
from fan_identity.domain.rescoring import RescoreRequest
from fan_identity.io import pacing
from fan_identity.io.backends import Backends
from fan_identity.io.pacing import Pacer
from fan_identity.io.settings import load_settings

FANS = 300
OF_CLUSTER = (
    "UPDATE items SET body = CAST(json_set(body, '$.clusterId', 'c') AS BLOB) WHERE sk = 'LATEST' AND pk LIKE '%0'"
)


def activity(fan: int, hour: int) -> bytes:
    fields = {"activityId": f"a-{fan}", "activityType": "login", "occurredAt": f"2026-01-01T{hour:02d}:00:00Z"}
    return json.dumps({**fields, "globalUserId": f"fan-{fan}"}).encode()


def change(store, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(statement)


@pytest.fixture(scope="module")
def scored(store_at, tmp_path_factory) -> bytes:
    """A store with a score of each fan, in hour fan % 24; every tenth is of cluster c."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "a.jsonl").write_bytes(b"\n".join(activity(fan, fan % 24) for fan in range(FANS)))
    store = store_at(folder / "fans.db")
    store.score(folder / "a.jsonl")
    change(store, OF_CLUSTER)
    return store.path.read_bytes()


@pytest.fixture
def store(store, scored):
    store.path.write_bytes(scored)
    return store


def latest(store) -> dict[str, dict[str, Any]]:
    rows = store.query("SELECT body FROM items WHERE sk = 'LATEST'")
    return {item["globalUserId"]: item for item in (json.loads(body) for (body,) in rows)}


def rescored(store) -> set[int]:
    found = (item for item in latest(store).values() if item["activityType"] == "rescore")
    return {int(item["globalUserId"].removeprefix("fan-")) for item in found}


def run(cli, store, *arguments: object, code: int = 0) -> Any:
    result = cli("rescore", *arguments, *store.flag, "--rate", "5000/s", "--json")
    assert result.code == code, result
    return result.json


def test_fans_are_named_in_a_file(cli, store, tmp_path):
    users = tmp_path / "users.txt"
    users.write_bytes(b"\xef\xbb\xbffan-1\r\nfan-2\n\nfan-3\nfan-2")
    books = run(cli, store, "--users", users)
    assert (books["counts"]["selected"], books["counts"]["scored"], books["unaccounted"]) == (3, 3, 0)
    assert rescored(store) == {1, 2, 3}


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (("--cluster", "c"), lambda fan: fan % 10 == 0),
        (("--cluster", "d"), lambda _: False),
        (("--from", "2026-01-01T05:00:00Z", "--to", "2026-01-01T07:00:00Z"), lambda fan: fan % 24 in (5, 6)),
        (("--from", "2026-01-01T20:00:00Z"), lambda fan: fan % 24 >= 20),
        (("--to", "2026-01-01T01:00:00Z"), lambda fan: fan % 24 == 0),
    ],
)
def test_fans_are_found_by_their_latest_score(cli, store, options, meant):
    expected = {fan for fan in range(FANS) if meant(fan)}
    books = run(cli, store, *options)
    assert books["counts"]["selected"] == books["counts"]["scored"] == len(expected)
    assert books["outcome"] == ("done" if expected else "nothing to do")
    assert rescored(store) == expected


def test_fans_are_found_by_the_model_of_their_latest_score(cli, store):
    (version,) = {item["modelVersion"] for item in latest(store).values()}
    assert run(cli, store, "--model-version", "another")["counts"]["selected"] == 0
    assert run(cli, store, "--model-version", version)["counts"]["scored"] == FANS
    assert rescored(store) == set(range(FANS))


def test_done_again_it_changes_nothing_and_under_another_id_it_does_all_again(cli, store):
    first = run(cli, store, "--cluster", "c", "--rescore-id", "one")
    # What a score changes here is the cluster: so that the fans are found again, it is put back.
    change(store, OF_CLUSTER)
    dump = store.dump()
    again = run(cli, store, "--cluster", "c", "--rescore-id", "one")
    assert (again["outcome"], again["requestedAt"]) == ("nothing to do", first["requestedAt"])
    assert again["counts"]["selected"] == again["counts"]["done_before"] == 30
    assert store.dump() == dump
    other = run(cli, store, "--cluster", "c", "--rescore-id", "two")
    assert (other["counts"]["scored"], other["requestedAt"] > first["requestedAt"]) == (30, True)


def test_killed_it_goes_on_with_the_same_time_and_scores_nobody_twice(cli, store, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text("\n".join(f"fan-{fan}" for fan in range(FANS)))
    arguments = ("rescore", "--users", users, *store.flag)
    before = store.scores()
    killed = cli.start(*arguments, "--rate", "100/s")
    killed.until(lambda: store.scores() > before + 60, "some were scored")
    assert killed.kill() == -signal.SIGKILL
    parts = store.number("SELECT count(*) FROM positions WHERE position = 'done'")
    assert 0 < parts < PARTS
    counts = run(cli, store, "--users", users)["counts"]
    assert counts["selected"] == FANS
    assert counts["scored"] + counts["done_before"] == FANS
    all_parts = len({bucket_of(f"fan-{fan}") % PARTS for fan in range(FANS)})
    assert store.number("SELECT count(*) FROM positions WHERE position = 'done'") == all_parts
    assert store.scores() == before + FANS, "lost 0, duplicates 0: all of one time"
    assert len({item["occurredAt"] for item in latest(store).values()}) == 1


def test_asked_to_stop_the_books_balance_and_it_says_how_to_go_on(cli, store, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text("\n".join(f"fan-{fan}" for fan in range(FANS)))
    stopped = cli.start("rescore", "--users", users, *store.flag, "--rate", "100/s", "--json")
    stopped.until(lambda: store.scores() > FANS + 30, "some were scored")
    stopped.signal(signal.SIGTERM)
    result = stopped.wait()
    counts = result.json["counts"]
    assert (result.code, result.json["unaccounted"], result.json["outcome"]) == (130, 0, "interrupted")
    assert counts["left"] + counts["scored"] == FANS
    assert "run the same command again to finish" in result.err
    run(cli, store, "--users", users)
    assert rescored(store) == set(range(FANS))


def test_a_fan_without_activities_is_a_dead_letter_that_can_be_redriven(cli, store, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text("fan-1\nnobody\n")
    books = run(cli, store, "--users", users, code=1)
    assert (books["counts"]["dead_lettered.no_activity"], books["unaccounted"]) == (1, 0)
    ((_, _, payload),) = store.dead_letters()
    assert json.loads(payload)["users"] == ["nobody"]
    assert cli("dead-letters", "redrive", *store.flag, "--json").json["queued"] == 1


def test_a_newer_live_score_stays(cli, store, tmp_path):
    """A backfill of the future stands for a fan who acts while the others are rescored."""
    books = run(cli, store, "--to", "2026-01-01T02:00:00Z", "--rescore-id", "one")
    change(store, "UPDATE items SET version = '9' || version WHERE sk = 'LATEST' AND pk = 'USER#fan-0'")
    before = latest(store)["fan-0"]
    users = tmp_path / "users.txt"
    users.write_text("fan-0\nfan-1\n")
    assert run(cli, store, "--users", users)["counts"]["scored"] == 2
    after = latest(store)
    assert after["fan-0"] == before
    assert after["fan-1"]["occurredAt"] > books["requestedAt"]


def test_real_scoring_holds_the_rate(store, monkeypatch):
    """On a clock that only the pacer moves: what was scored is counted each time it waits."""
    now = 0.0
    seen: list[tuple[float, int]] = []
    before = store.scores()

    def pass_(seconds: float) -> None:
        nonlocal now
        seen.append((now, store.scores() - before))
        now += seconds

    monkeypatch.setattr(pacing, "Pacer", lambda rate: Pacer(rate, lambda: now, pass_))
    pacing.pacer_of.cache_clear()
    settings = load_settings(store=store.address, rescore_rate=40)
    work = Rescore(RescoreRequest("r", scored_to="2027-01-01"), Backends.of(settings, "processRescoreEvents"))
    result = rescore(work, PipelineOptions([]))
    pacing.pacer_of.cache_clear()
    assert (result.counts["scored"], result.unaccounted) == (FANS, 0)
    assert len(seen) > PARTS / 2
    assert all(number <= 40 * seconds + 2.001 for seconds, number in seen), "never more than the rate, and one portion"
    assert now == pytest.approx(FANS / 40, rel=0.02)


def test_parts_share_the_fans_about_evenly():
    parts = [bucket_of(f"fan-{fan}") % PARTS for fan in range(6_400)]
    assert {parts.count(part) > 50 for part in range(PARTS)} == {True}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "in one way: --users, --cluster, --model-version, or --from and --to"),
        (("--cluster", "c", "--to", "2026-01-01"), "in one way"),
        (("--from", "2026-01-02", "--to", "2026-01-01"), "--from is not before --to"),
        (("--from", "now"), "--from: write a time as"),
        (("--cluster", "c", "--rate", "-1"), "--rate: write a whole number a second"),
        (("--cluster", "c", "--rescore-id", " "), "--rescore-id is blank"),
        (("--users", "missing.txt"), "missing.txt cannot be read"),
        (("--users", "empty.txt"), "names nobody"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(cli, store, tmp_path, options, said):
    (tmp_path / "empty.txt").write_text("\n \n")
    result = cli("rescore", *options, *store.flag, folder=tmp_path)
    assert (result.code, len(result.err_lines)) == (2, 1), result
    assert said in result.err
