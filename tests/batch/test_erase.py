"""A fan who is everywhere is erased, and exported, from everywhere; fans whose ids look alike keep every byte."""

import html
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest

from fan_identity.batch import import_job
from fan_identity.batch.erase import erase, exported, find
from fan_identity.batch.fan_reports import Reports, page_speaks_of
from fan_identity.batch.report_text import label, shown
from fan_identity.domain.fan_traces import Fan
from fan_identity.domain.imports import ImportKind, bucket_of
from fan_identity.domain.keys import arm_cache_key
from fan_identity.io.errors import UsageError
from fan_identity.io.fan_places import _TABLES, ACCOUNT_FANSCORE_TABLE, DEMAND_TABLE, OUTBOX_TABLE, FanStores, places_of
from fan_identity.io.fan_tables import OUTBOX_PKS
from fan_identity.io.import_versions import ImportVersions, Part
from fan_identity.io.leases import Lease
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters
from fan_identity.io.sqlite.queue import SqliteQueue
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteArmCache, SqliteTable
from fan_identity.pipelines.cli.fans import IMPORTS_LEASE
from fan_identity.serving import sources

from ..planted_fans import (
    VERSIONS,
    Planted,
    plant_cache,
    plant_imports,
    plant_letters,
    plant_reports,
    plant_store,
    plant_tables,
)

PLACES = {
    "queue accountActivityQueue": 2,
    "queue identityEventQueue": 1,
    "queue rescoreQueue": 1,
    "dead letters": 6,
    "outbox": 2,
    "activity log": 3,
    "examples of botOrNot imports": 2,
    "botOrNot imports": 4,
    "examples of cluster imports": 2,
    "cluster imports": 4,
    "table": 9,
    "staging table": 4,
    "verification table": 4,
    "account fanscore table": 1,
    "demand table": 1,
    "ARM cache": 1,
}
"""By place, what is planted of each fan."""

ALIKE = [
    ("fan-7", "fan-77", "fan-7#LATEST"),
    ("fan-7#LATEST", "fan-7", "FAN-7#LATEST"),
    ("*", "fan-*", "?"),
    ("%", "_", "%%"),
    ("é\u0301\U0001f3ab", "e\u0301\U0001f3ab", "é\u0301"),
    ("f" * 10_000, "f" * 9_999, "f" * 1_024),
    ("sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256-" + "a" * 64),
    ("x'; DROP TABLE items; --", "x'", "x"),
    ("a,b", "a", "b"),
    ('q"q', "q", 'q""q'),
    ("\x01\n\t", "\x01\n", "\x01"),
    ("12345", "1234", "123456"),
]


@pytest.fixture
def store(tmp_path):
    return SqliteStore(tmp_path / "fans.db")


def table_of(store):
    return lambda setting: SqliteTable(store, _TABLES.get(setting, setting))


def plant(fans, store):
    for fan in fans:
        plant_tables(fan, table_of(store))
        plant_cache(fan, SqliteArmCache(store))
    plant_imports(fans, SqliteTable(store, _TABLES["table"]))
    plant_letters(fans, SqliteDeadLetters(store))
    plant_store(fans, store)


def places(fan, store):
    return places_of(Fan(fan.user, fan.member), FanStores(store=f"sqlite:///{store.path}"))


def bytes_of(store):
    """Every byte of the store's files."""
    files = [path for path in store.path.parent.iterdir() if path.name.startswith(store.path.name)]
    assert store.path in files
    return b"".join(path.read_bytes() for path in files)


@pytest.mark.parametrize("ids", ALIKE, ids=range(len(ALIKE)))
def test_of_three_alike_one_is_erased_and_the_others_keep_every_item(store, ids):
    fans = [Planted(user) for user in ids]
    gone, *others = fans
    plant(fans, store)
    before = {fan.user: find(places(fan, store)) for fan in fans}
    assert {name: len(found) for name, found in before[gone.user].items()} == PLACES
    assert all(fan.mark.encode() in bytes_of(store) for fan in fans)

    done = erase(places(gone, store), [store])

    assert (done.found, done.erased, done.left, done.depths) == (PLACES, PLACES, {}, {})
    assert not any(find(places(gone, store)).values())
    assert gone.mark.encode() not in bytes_of(store)
    for fan in others:
        after = find(places(fan, store))
        assert {name: len(found) for name, found in after.items()} == PLACES
        # Requests of several fans lose the one fan; all else of the others is as it was.
        for name, was in before[fan.user].items():
            if name not in ("queue rescoreQueue", "dead letters"):
                assert after[name] == was
        assert bytes_of(store).count(fan.mark.encode()) > 20
        (request,) = after["queue rescoreQueue"]
        assert json.loads(request["body"])["users"] == [fan.user for fan in others]
        letters = [json.loads(found["payload"]) for found in after["dead letters"] if "rescoreId" in found["payload"]]
        assert [each["users"] for each in letters] == [[fan.user for fan in others]]


def test_no_byte_of_the_id_is_left(store):
    """Ids unlike any other text, in every writing they are stored in."""
    fans = [Planted(user) for user in ("jürgen.7f3a@example.org", "anna.91cc@example.org")]
    gone, other = fans
    plant(fans, store)
    writings = {
        fan.user: [
            fan.user.encode(),
            json.dumps(fan.user)[1:-1].encode(),
            Fan(fan.user).group_id.encode(),
            fan.mark.encode(),
        ]
        for fan in fans
    }
    content = bytes_of(store)
    assert all(writing in content for fan in fans for writing in writings[fan.user])
    erase(places(gone, store), [store])
    content = bytes_of(store)
    assert [content.count(writing) for writing in writings[gone.user]] == [0, 0, 0, 0]
    assert all(content.count(writing) > 0 for writing in writings[other.user])
    for kind in ImportKind:
        versions = ImportVersions(SqliteTable(store, _TABLES["table"]), kind)
        for version in VERSIONS:
            for part in Part:
                users = versions.bucket(version, part, bucket_of(gone.user))["user"].to_pylist()
                assert gone.user not in users
                assert f"somebody of {bucket_of(gone.user)}" in users


def test_what_was_overwritten_and_deleted_long_ago_is_gone_too(store):
    fan = Planted("fan-7")
    table = table_of(store)("table")
    table.batch_put([{"PK": f"USER#{n}", "SK": "A", "v": "x" * 2_000} for n in range(100)])
    table.put({"PK": "USER#fan-7", "SK": "A", "old": "overwritten " + fan.mark})
    table.put({"PK": "USER#fan-7", "SK": "A", "v": ""})
    SqliteArmCache(store).put_if_newer([(arm_cache_key("fan-7"), "1", {"m": "deleted " + fan.mark})])
    SqliteArmCache(store).delete([arm_cache_key("fan-7")])
    assert fan.mark.encode() in bytes_of(store), "or this test shows nothing"
    erase(places(fan, store), [store])
    assert fan.mark.encode() not in bytes_of(store)


def test_again_finds_nothing_and_a_dry_run_changes_nothing(store):
    fans = [Planted("fan-7"), Planted("fan-77")]
    plant(fans, store)
    dump = list(sqlite3.connect(store.path).iterdump())
    done = erase(places(fans[0], store), [store], dry_run=True)
    assert (done.found, done.erased) == (PLACES, {})
    assert list(sqlite3.connect(store.path).iterdump()) == dump
    erase(places(fans[0], store), [store])
    done = erase(places(fans[0], store), [store])
    assert set(done.found.values()) == set(done.erased.values()) == {0}


@pytest.mark.parametrize("stop", [0, 3, 8, 12, 16])
def test_stopped_anywhere_it_goes_on_from_there(store, stop):
    """Each place is erased or not; what was stopped after any of them is done by the next run."""
    fans = [Planted("fan-7"), Planted("fan-77")]
    plant(fans, store)
    for place in places(fans[0], store)[:stop]:
        place.erase()
    done = erase(places(fans[0], store), [store])
    assert list(done.erased.values()) == [0] * stop + list(PLACES.values())[stop:]
    assert fans[0].mark.encode() not in bytes_of(store)
    assert {name: len(found) for name, found in find(places(fans[1], store)).items()} == PLACES


KILLED_ERASE = """
import os, signal, sys
from contextlib import contextmanager
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.pipelines.cli.main import app

left = int(sys.argv[1])
transaction = SqliteStore.transaction

@contextmanager
def killed(self):
    global left
    with transaction(self) as connection:
        yield connection
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)  # written, and not committed

SqliteStore.transaction = killed
app(sys.argv[2:], obj=[], standalone_mode=False)
"""


@pytest.mark.slow
def test_killed_with_kill_9_in_any_write_the_next_run_ends_it(store, tmp_path):
    """Killed in each write the command makes, one after another, each time in a copy of the store."""
    gone, other = Planted("fan-7"), Planted("fan-77")
    plant([gone, other], store)
    store.close()
    for kills in itertools.count(1):
        copy = SqliteStore(tmp_path / f"killed-{kills}.db")
        shutil.copy(store.path, copy.path)
        arguments = [str(kills), "erase", gone.user, "--store", f"sqlite:///{copy.path}"]
        ended = subprocess.run([sys.executable, "-c", KILLED_ERASE, *arguments], check=False, capture_output=True)
        if ended.returncode != -signal.SIGKILL:
            break
        done = erase(places(gone, copy), [copy])
        assert not done.left
        assert gone.mark.encode() not in bytes_of(copy)
        assert {name: len(found) for name, found in find(places(other, copy)).items()} == PLACES
    assert ended.returncode == 0, ended
    assert kills > len(PLACES)


def test_the_group_of_an_erased_message_goes_on(store):
    """A message between two of another fan's in one group; and a group that was in flight."""
    queue = SqliteQueue(store, "accountActivityQueue")
    plant_store([Planted("fan-7"), Planted("fan-8")], store)
    erase(places(Planted("fan-7"), store), [])
    queue.release_in_flight()
    received = queue.receive(10)
    assert [json.loads(message.body)["globalUserId"] for message in received] == ["fan-8", "fan-8"]
    queue.delete([message.receipt for message in received])
    assert queue.depth() == 0
    assert queue.receive(10) == []


def test_an_export_says_what_an_erasure_erases(store, tmp_path):
    fans = [Planted("fan-7"), Planted("fan-77")]
    plant(fans, store)
    document = exported(Fan("fan-7", fans[0].member), places(fans[0], store), "now")
    assert {name: len(found) for name, found in document["places"].items()} == PLACES
    text = json.dumps(document)
    assert fans[0].mark in text
    assert fans[1].mark not in text
    assert document["places"]["ARM cache"][0]["value"]["arm_risk"] == 3
    assert [fact["activityId"][-2:] for fact in document["places"]["activity log"]] == ["-0", "-1", "-2"]
    (request,) = document["places"]["queue rescoreQueue"]
    assert json.loads(request["body"])["users"] == ["fan-7", "fan-77"]


def test_names_that_stand_twice_are_the_same():
    assert sources._ACCOUNT_FANSCORE_TABLE == ACCOUNT_FANSCORE_TABLE
    assert sources._DEMAND_TABLE == DEMAND_TABLE
    assert sources._OUTBOX_TABLE == OUTBOX_TABLE
    assert [f"OUTBOX#{shard}" for shard in range(sources._OUTBOX_SHARDS)] == list(OUTBOX_PKS[:-1])
    assert import_job.LEASE == IMPORTS_LEASE


def test_reports_are_listed_and_deleted_when_asked(tmp_path):
    fans = [Planted("fan-7"), Planted("fan-77")]
    plant_reports(fans, tmp_path / "r")
    listed = Reports(tmp_path / "r", Fan("fan-7"), delete=False)
    assert [found["file"][-7:] for found in listed.find()] == ["/0.json", "0.jsonl", "parquet"]
    assert listed.erase() == 0
    assert Reports(tmp_path / "r", Fan("fan-7"), delete=True).erase() == 3
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["1.json", "1.jsonl", "1.parquet", "none.html"]
    with pytest.raises(UsageError, match="there is no folder"):
        Reports(tmp_path / "none", Fan("fan-7"), delete=False)


@pytest.mark.parametrize("user", [ids[0] for ids in ALIKE])
def test_pages_name_a_fan_however_it_is_written(user):
    others = {other for ids in ALIKE for other in ids if other != user}
    figures = json.dumps({"y": [label(user)]}).replace("<", "\\u003c").replace("&", "\\u0026")
    pages = [
        f"<td class='user'><bdi>{html.escape(shown(user))}</bdi></td>",
        f"<p title='{html.escape(shown(user))}'>hello",
        f'<script type="application/json" id="figures">{figures}</script>',
    ]
    for page in pages:
        assert page_speaks_of(page.encode(), Fan(user))
        assert not [other[:50] for other in others if page_speaks_of(page.encode(), Fan(other))]


# The command


@pytest.fixture
def run(tmp_path, store):
    def run(*arguments, code=0, **options):
        done = subprocess.run(
            [sys.executable, "-m", "fan_identity.pipelines.cli", *arguments],
            env={name: value for name, value in os.environ.items() if not name.startswith("FAN_IDENTITY_")}
            | {"FAN_IDENTITY_STORE": f"sqlite:///{store.path}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        assert done.returncode == code, done
        return done

    return run


def test_the_command_erases_and_writes_down_what_it_did(run, store, tmp_path):
    fans = [Planted("fan-7"), Planted("fan-77")]
    plant(fans, store)
    plant_reports(fans, tmp_path / "reports")
    everything = ("--member", fans[0].member, "--report-folder", "reports")
    document = json.loads(run("export", "fan-7", *everything).stdout)
    assert {name: len(found) for name, found in document["places"].items()} == {**PLACES, "reports": 3}

    would = json.loads(run("erase", "-", *everything, "--dry-run", "--json", input="fan-7\n").stdout)
    assert would["found"] == {**PLACES, "reports": 3}
    left = run("erase", "fan-7", *everything, "--summary", "s.json", "--report", "s.html", code=1)
    assert "left: reports (3)" in left.stderr
    done = run("erase", "fan-7", *everything, "--remove-reports")

    books = json.loads(left.stderr.splitlines()[-1])
    assert books["event"] == "fanErased"
    assert books["fan"] == Fan("fan-7").digest
    assert books["erased"] == PLACES
    assert json.loads(done.stderr.splitlines()[-1])["erased"] == {"reports": 3}
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["outcome"], summary["exitCode"]) == ("failed", 1)
    assert summary["counts"] == {**PLACES, "reports": 0}
    for said in (left.stdout, left.stderr, done.stdout, done.stderr, *map(str, summary.items())):
        assert "fan-7" not in said
    assert "fan-7" not in (tmp_path / "s.html").read_text()
    assert fans[0].mark.encode() not in bytes_of(store)


def test_an_export_to_a_file_is_for_its_owner(run, store, tmp_path):
    plant([Planted("fan-7")], store)
    run("export", "fan-7", "--out", "fan.json")
    assert (tmp_path / "fan.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "fan.json").read_text())["globalUserId"] == "fan-7"


def test_mistakes_and_a_running_import_are_said(run, store):
    plant([Planted("fan-7")], store)
    assert "user id is blank" in run("erase", " ", code=2).stderr
    assert "member id is blank" in run("export", "f", "--member", "", code=2).stderr
    assert "not UTF-8" in run("export", os.fsdecode(b"f\xff"), code=2).stderr
    assert "does not exist" in run("erase", "f", "--store", "sqlite:///none.db", code=2).stderr
    assert not (store.path.parent / "none.db").exists()
    assert "--report-folder" in run("erase", "f", "--remove-reports", code=2).stderr
    assert "--summary" in run("erase", "fan-7", "--summary", "none/s.json", code=2).stderr
    assert sum(map(len, find(places(Planted("fan-7"), store)).values())) == sum(PLACES.values()), "said before it began"
    with Lease(SqliteTable(store, _TABLES["table"]), IMPORTS_LEASE, "the import"):
        assert "is being run by the import" in run("erase", "fan-7", code=3).stderr
    assert json.loads(run("erase", "fan-7", "--dry-run", "--json").stdout)["found"]["table"] == 9


def test_beam_is_not_imported(store):
    plant([Planted("fan-7")], store)
    program = """
import sys
from fan_identity.pipelines.cli.main import app
app(sys.argv[1:], obj=[], standalone_mode=False)
sys.exit("apache_beam" in sys.modules)
"""
    for command in ("export", "erase"):
        arguments = [command, "fan-7", "--store", f"sqlite:///{store.path}"]
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
