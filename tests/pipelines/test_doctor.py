"""``fan-identity doctor`` on this machine: sections, exit codes, and that looking changes nothing."""

from fan_identity.domain.known_broken import BROKEN
from fan_identity.io.ports import QueueEntry
from fan_identity.io.sqlite.queue import SqliteQueue
from fan_identity.io.sqlite.store import SqliteStore


def by_check(result):
    return {(one["section"], one["check"]): one for one in result.json}


def test_without_settings_it_looks_at_this_machine(cli):
    result = cli("doctor", "--json")
    assert result.code == 0 and result.err == ""
    found = by_check(result)
    assert found["versions", "Python"]["status"] == "ok"
    assert found["versions", "model"]["detail"] == "embedded-scorecard-1"
    assert {section for section, _ in found} == {"versions", "known broken"}


def test_a_store_is_looked_at_and_not_made(cli, tmp_path):
    missing = cli("doctor", "--json", "--store", f"sqlite:///{tmp_path}/fans.db")
    assert missing.code == 0
    assert "does not exist yet" in by_check(missing)["parts", "store"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_a_store_tells_its_queues_and_who_reported(cli, tmp_path):
    store = SqliteStore(tmp_path / "fans.db")
    entries = [QueueEntry(f"g{number}", f"d{number}", b"{}") for number in range(3)]
    SqliteQueue(store, "accountActivityQueue").send(entries)
    result = cli("doctor", "--json", "--store", f"sqlite:///{tmp_path}/fans.db")
    assert result.code == 0, result
    found = by_check(result)
    assert found["parts", "store"]["status"] == "ok"
    queue = found["queues", "accountActivityQueue"]
    assert queue["data"]["waiting"] == 3 and queue["detail"].startswith("3 waiting, the oldest for ")
    assert found["workers", "reports"]["detail"] == "none reported in the past day"
    people = cli("doctor", "--store", f"sqlite:///{tmp_path}/fans.db")
    assert [line for line in people.text.splitlines() if line in ("versions", "parts", "queues", "workers")] == [
        "versions",
        "parts",
        "queues",
        "workers",
    ]


def test_what_is_down_is_three_and_a_wrong_setting_two(cli, tmp_path):
    down = cli("doctor", "--json", "--cache", "redis://127.0.0.1:1/0")
    assert down.code == 3
    assert "is out of reach" in by_check(down)["parts", "cache"]["detail"]
    wrong = cli("doctor", "--table", "redis://host/0")
    assert wrong.code == 2 and "--table: redis:// is not supported here" in wrong.err
    (tmp_path / "model.json").write_text("{}")
    model = cli("doctor", "--json", "--model", f"file://{tmp_path}/model.json")
    assert model.code == 3
    assert by_check(model)["versions", "model"]["status"] == "failed"


def test_a_password_in_an_address_is_not_shown(cli):
    result = cli("doctor", "--cache", "redis://fan:hunter2@127.0.0.1:1/0")
    assert result.code == 3
    assert "hunter2" not in result.text + result.err
    assert "redis://127.0.0.1:1/0" in result.text


def test_all_known_pairs_can_be_listed(cli):
    listed = cli("doctor", "--pairs", "--json").json
    assert [one["what"] for one in listed] == [one.what for one in BROKEN]
    assert "redis-py < 4.5.5" in cli("doctor", "--pairs").text
