"""Imports by the reference's names and by events: what no flag can say stands in the environment."""

import json

import pytest

from fan_identity.batch.import_job import ImportJob, ImportRefusedError, ImportRequest
from fan_identity.domain.imports import ImportKind, Thresholds
from fan_identity.io.backends import Backends
from fan_identity.io.settings import load_settings
from fan_identity.pipelines.runner import parse_beam_flags

from ..imported_fans import BON, TIME, written


@pytest.fixture
def scores(tmp_path):
    return written(tmp_path / "first.csv", BON, [(f"fan-{number}", 0.5, TIME) for number in range(5)])


def test_a_first_import_by_its_name_in_the_reference(cli, store, scores):
    named = {"APP_NAME": "startBotOrNotImport", "FAN_IDENTITY_SOURCE": str(scores)}
    refused = cli("run", *store.flag, "--json", env=named)
    assert (refused.code, refused.json["result"]) == (2, "refused")
    assert "--max-unknown 0.2" in refused.err
    done = cli("run", *store.flag, "--json", env={**named, "FAN_IDENTITY_MAX_UNKNOWN": "1"})
    assert (done.code, done.json["result"]) == (0, "active")


def test_a_dry_run_writes_nothing_at_all(cli, store, scores):
    assert cli("imports", "start", "bot-or-not", scores, *store.flag, "--max-unknown", "1", "--dry-run").code == 0
    assert store.query("SELECT count(*) FROM items") == [(0,)]


def test_files_taken_back_come_again_by_hand_and_not_by_an_event(cli, store, scores):
    start = ("imports", "start", "bot-or-not", scores, *store.flag, "--max-unknown", "1")
    assert cli(*start).code == 0
    assert cli("imports", "rollback", "bot-or-not", *store.flag).code == 0

    backends = Backends.of_tables(load_settings(store=store.address))
    job = ImportJob(ImportKind.BOT_OR_NOT, backends, parse_beam_flags([], prism=None))
    request = ImportRequest(
        ImportKind.BOT_OR_NOT, [str(scores)], thresholds=Thresholds(unknown=1), refuse_rolled_back=True
    )
    with pytest.raises(ImportRefusedError, match="which is rolledBack; nothing was written"):
        job.run(request)
    assert cli(*start).code == 0
    listed = cli("imports", "list", *store.flag, "--json").out.splitlines()
    assert [json.loads(line)["state"] for line in listed] == ["active", "rolledBack"]
