"""The command line as people and programs meet it."""

import base64
import fcntl
import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fan_identity.domain.imports import ImportKind, Pointer, fan_item, pointer_item
from fan_identity.domain.keys import user_pk
from fan_identity.io.backends import Backends
from fan_identity.io.settings import load_settings

START_MS = 1_718_355_600_000
COMMAND = Path(sys.executable).with_name("fan-identity")
COMMANDS = [
    *("demo", "score", "run", "backfill", "rescore", "lambda", "arm", "show", "dump"),
    *("serve", "sandbox", "schema", "doctor"),
    *("erase", "export"),
    *("dead-letters", "dead-letters list", "dead-letters show", "dead-letters redrive"),
    *("imports", "imports start", "imports list", "imports show", "imports rollback", "imports follow"),
    *("imports clean", "imports on-event", "imports watch"),
    *("clusters", "clusters build", "clusters show"),
    *("api-keys", "api-keys create", "api-keys list", "api-keys revoke"),
    *("audit", "audit list", "audit verify"),
]
ESC = "\x1b"


def activity(activity_id: str, user: str = "fan", **fields: Any) -> bytes:
    named = {"activityId": activity_id, "globalUserId": user, "activityType": "login", "occurredAt": START_MS}
    return json.dumps({**named, **fields}).encode()


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.fixture
def filled(store, tmp_path) -> Any:
    """A store with scores of several users and a dead letter."""
    users = ("fan", "fan#2", "ø", "Z", "a", "\x1b[31mred", "x" * 2_000)
    lines = [activity(f"{n}-{user}", user, occurredAt=START_MS + n) for user in users for n in range(3)]
    store.score(write(tmp_path / "filled.jsonl", *lines, b'{"activityId":"cut'))
    return store


# Help


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example(cli, command):
    result = cli(*command.split(), "--help")
    assert (result.code, result.err) == (0, "")
    assert result.text.startswith(f"Usage: fan-identity {command}".rstrip())
    if command not in ("dead-letters", "imports", "clusters", "api-keys", "audit"):
        assert "Examples:" in result.text
        examples = result.text.partition("Examples:")[2].partition("\nOptions:")[0].partition("\nArguments:")[0]
        assert re.search(rf"^ +fan-identity {command}".rstrip(), examples, re.MULTILINE)
    assert cli(*command.split(), "-h").out == result.out


def test_help_lists_every_command(cli):
    listed = cli("--help").text.partition("Commands:")[2]
    assert re.findall(r"^  ([a-z-]+)  ", listed, re.MULTILINE) == [name for name in COMMANDS if " " not in name]


def test_help_names_every_worker(cli):
    from fan_identity.io.registry import WORKERS  # noqa: PLC0415

    text = cli("run", "--help").text
    assert all(worker in text for worker in WORKERS)


def examples(text: str) -> list[list[str]]:
    """The arguments of the examples of a help text; a long one is folded, and ends with a blank line."""
    paragraphs = re.split(r"\n\s*\n", text.partition("Examples:")[2])
    folded = [" ".join(paragraph.split()) for paragraph in paragraphs]
    return [line.partition(" >")[0].split()[1:] for line in folded if line.startswith("fan-identity ")]


_ELSEWHERE = ("access.log", "day1", "big", "sqlite:///b.db)", "redis://", "dynamodb://", '"dynamodb://')


def test_examples_work_as_they_stand(cli, tmp_path):
    write(tmp_path / "activities.jsonl", *(activity(f"{n}", "fan-00042", occurredAt=START_MS + n) for n in range(5)))
    ran = 0
    for name in ("score", "arm", "show", "dump", "dead-letters list", "doctor"):
        for arguments in examples(cli(*name.split(), "--help").text):
            if any(word.startswith(_ELSEWHERE) for word in arguments):
                continue  # on files and servers that are not here
            result = cli(*arguments, folder=tmp_path)
            assert (result.code, result.err) == (0, ""), arguments
            ran += 1
    assert ran >= 9


def test_shell_completion_is_printed_and_completes(cli):
    shell = f"{COMMAND} --show-completion; exit"
    shown = subprocess.run(["bash", "-c", shell], env=cli.environment, capture_output=True, text=True, check=True)
    assert "_fan_identity_completion" in shown.stdout
    for shell in ("bash", "zsh", "fish"):
        script = cli(env={"_FAN_IDENTITY_COMPLETE": f"source_{shell}"})
        assert script.code == 0
        assert "fan-identity" in script.text
        assert "_FAN_IDENTITY_COMPLETE" in script.text
    words = {"_FAN_IDENTITY_COMPLETE": "complete_bash", "COMP_WORDS": "fan-identity d", "COMP_CWORD": "1"}
    assert cli(env=words).text.split() == ["demo", "dump", "doctor", "dead-letters"]


# JSON


def json_values(out: bytes) -> list[Any]:
    """Standard output is one JSON value a line and nothing else."""
    assert out.endswith(b"\n") or not out
    return [json.loads(line) for line in out.splitlines()]


def test_json_is_one_value_a_line_and_nothing_else(filled, cli, tmp_path):
    source = write(tmp_path / "more.jsonl", activity("more"), b"[]")
    flag = filled.flag
    (letter,) = json_values(cli("dead-letters", "list", *flag, "--json").out)
    letter_id = letter["deadLetterId"]
    for code, *arguments in (
        (1, "score", source),
        (1, "run", "enqueueFromStream", "--source", source),
        (0, "run", "scoreUsers"),
        (0, "arm", "fan"),
        (0, "arm", "nobody"),
        (0, "show", "fan"),
        (0, "show", "nobody"),
        (0, "doctor"),
        (0, "dead-letters", "show", letter_id),
        (0, "dead-letters", "redrive", "--dry-run"),
        (1, "dead-letters", "redrive"),
    ):
        result = cli(*arguments, *flag, "--json")
        assert result.code == code, result
        assert len(json_values(result.out)) == 1
    assert len(json_values(cli("dump", *flag).out)) == len(filled.item_keys()) + 7
    assert len(json_values(cli("dead-letters", "list", *flag, "--json").out)) == 2
    assert json_values(cli("dead-letters", "list", "--reason", "none", *flag, "--json").out) == []


def test_a_fresh_command_writes_json_to_standard_output_and_nothing_to_standard_error(cli, store, tmp_path):
    result = cli.fresh("score", write(tmp_path / "a.jsonl", activity("a")), *store.flag, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["scored"] == 1


def test_a_fresh_command_says_a_mistake_in_one_line(cli, store, tmp_path):
    result = cli.fresh("score", tmp_path / "none.jsonl", *store.flag)
    assert (result.code, result.out) == (2, b"")
    assert result.err_lines == [f"error: {tmp_path / 'none.jsonl'}: no such file; check the name"]


def test_the_demo_on_a_small_size(cli, tmp_path):
    result = cli("demo", "--fans", "100", "--bots", "10", "--out", tmp_path / "demo", "--json")
    assert (result.code, result.err) == (0, "")
    books = result.json
    assert books["unaccounted"] == 0
    assert books["rocAuc"] > 0.6
    assert Path(books["report"]).read_text().lstrip().lower().startswith("<!doctype html>")
    assert cli("dump", "--store", books["store"]).code == 0


# Lookups


def test_arm_and_show_agree(filled, cli):
    shown = cli("show", "fan", *filled.flag, "--json", "--limit", "2").json
    assert [item["activityId"] for item in shown["scores"]] == ["2-fan", "1-fan"]
    assert shown["latest"]["activityId"] == "2-fan"
    assert shown["globalUserId"] == "fan"
    arm = shown["latest"]["armRisk"]
    assert cli("arm", "fan", *filled.flag, "--json").json == {"data": {"armScore": arm}}
    assert cli("arm", "fan", *filled.flag).text.startswith(f"ARM {arm} of 5 (as of 2024-06-14, model ")
    assert cli("arm", "nobody", *filled.flag, "--json").json == {"data": {"armScore": None}}
    assert cli("arm", "nobody", *filled.flag).text == cli("show", "nobody", *filled.flag).text == "unknown fan\n"


def test_show_adds_up_for_people_too(filled, cli):
    adds_up(filled, cli)


def test_show_tells_what_imports_did(store, cli, tmp_path):
    table = Backends.of(load_settings(store=store.address)).open_table()
    table.put(pointer_item(ImportKind.CLUSTER, Pointer("v1", 1, 0)))
    table.put(fan_item(ImportKind.CLUSTER, "v1", user_pk("fan"), "c-7", 120, 0))
    store.score(write(tmp_path / "a.jsonl", activity("1", "fan")))
    lines = adds_up(store, cli)
    assert lines[2] == "  −20.00: accounts in the same cluster: 120", "what weighs most is told first"
    assert "  CLUSTER_SIZE, " in lines[-1], "in the history too"


def adds_up(filled, cli):
    """The lines for people of a fan whose score they explain."""
    lines = cli("show", "fan", *filled.flag).text.splitlines()
    latest = cli("show", "fan", *filled.flag, "--json").json["latest"]
    assert lines[0].startswith(f"fan  score {latest['accountScore']:.2f} of 100, ARM {latest['armRisk']} of 5")
    points = [re.match(r" *([−+]?)(\d+\.\d\d): ", line) for line in lines[1:]]
    total = sum(float(found[2]) * (-1 if found[1] == "−" else 1) for found in points if found)
    assert round(total * 100) == round(latest["accountScore"] * 100)
    return lines


def test_the_store_may_come_from_the_environment(filled, cli):
    env = {"FAN_IDENTITY_STORE": filled.address}
    assert cli("arm", "fan", env=env).out == cli("arm", "fan", *filled.flag).out
    assert cli("run", "--json", env={**env, "APP_NAME": "scoreUsers"}).json["worker"] == "scoreUsers"
    other = cli("arm", "fan", "--store", "sqlite:///none.db", env=env)
    assert other.code == 2, "a flag wins over the environment"


def test_dump_is_sorted_and_names_no_run(filled):
    dumped = filled.dump().splitlines()
    values = [json.loads(line) for line in dumped]
    keys = [(value["PK"].encode(), value["SK"].encode()) for value in values if "PK" in value]
    cached = [value["cacheKey"].encode() for value in values if "PK" not in value]
    assert keys == sorted(keys)
    assert cached == sorted(cached)
    assert len(keys) + len(cached) == len(values) == 7 * 4 + 7
    assert [list(value) for value in values] == [sorted(value) for value in values], "canonical: names sorted"
    for name in ("requestId", "dateUpdated", "request_id"):
        assert f'"{name}"'.encode() not in filled.dump()


# Terminals and pipes


@pytest.mark.parametrize(
    "arguments",
    [
        "dump",
        "arm fan",
        "arm fan --json",
        "show fan",
        "show fan --json",
        "dead-letters list",
        "dead-letters list --json",
    ],
)
def test_a_pipe_closed_early_gives_no_traceback(filled, cli, arguments):
    command = subprocess.Popen(
        [str(COMMAND), *arguments.split(), *filled.flag],
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()  # before it writes anything
    errors = command.stderr.read()
    command.stderr.close()
    assert command.wait(60) in (0, 1)
    assert errors == b""


def test_a_reader_that_takes_the_first_line_gets_it(filled, cli):
    # More than a pipe holds, so that the writer notices.
    shell = f"for i in $(seq 1); do {COMMAND} dump {' '.join(filled.flag)} | head -n 1; done"
    done = subprocess.run(["bash", "-c", shell], env=cli.environment, capture_output=True, check=True)
    assert done.stdout.splitlines() == filled.dump().splitlines()[:1]
    assert done.stderr == b""


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "bell\x07",
    "\x1b]0;title\x07",
    "c1\x9b31m",
    "over\rwritten",
    "\u202egnp",
    "[red]x[/red]",
]


@pytest.mark.parametrize("user", HOSTILE, ids=ascii)
def test_hostile_ids_are_printed_escaped(store, cli, tmp_path, user):
    source = write(tmp_path / "a.jsonl", activity(user, user), activity(user, user)[:-9])
    score = cli("score", source, *store.flag)
    shown = cli("show", user, *store.flag)
    letters = cli("dead-letters", "list", *store.flag)
    (letter,) = json_values(cli("dead-letters", "list", *store.flag, "--json").out)
    letter_shown = cli("dead-letters", "show", letter["deadLetterId"], *store.flag)
    assert shown.code == letters.code == letter_shown.code == 0
    for result in (score, shown, letters, letter_shown, cli("arm", user, *store.flag)):
        for text in (result.text, result.err):
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text), text
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in user)
    assert shown.text.startswith(escaped)
    # JSON escapes control characters by itself.
    as_json = cli("show", user, *store.flag, "--json")
    assert as_json.json["globalUserId"] == user
    assert ESC not in as_json.text


@pytest.mark.parametrize(
    "folder", ["[bold]", "a[/b]", "long-" * 30 + "/" + "name-" * 30], ids=["tag", "end tag", "long"]
)
def test_a_path_is_said_as_it_is_and_on_one_line(cli, store_at, tmp_path, folder):
    store = store_at(tmp_path / folder / "fans.db")
    store.path.parent.mkdir(parents=True)
    source = write(store.path.parent / "a.jsonl", activity("a"), b"[]")
    result = cli("score", source, *store.flag)
    assert result.code == 1
    hint = f"fan-identity dead-letters list --store {store.address}"
    assert result.err_lines == [f"1 dead letters; look at them with: {hint}"]
    assert cli("dead-letters", "redrive", *store.flag, "--dry-run").code == 0
    missing = source.with_name("none.jsonl")
    assert cli("score", missing, *store.flag).err == f"error: {missing}: no such file; check the name\n"


def test_a_hostile_path_is_said_escaped(cli, store, tmp_path):
    result = cli("score", tmp_path / f"no{ESC}[31m\n.jsonl", *store.flag)
    assert result.code == 2
    assert len(result.err_lines) == 1
    assert ESC not in result.err


# Dead letters


def became(result):
    """What became of letters that were sent again."""
    return {name: result.json[name] for name in ("queued", "rejected", "failed")}


def letters_of(store) -> list[dict[str, Any]]:
    return json_values(store.cli("dead-letters", "list", *store.flag, "--json", "--all").out)


def test_dead_letters_are_listed_and_shown(store, cli, tmp_path):
    bad = [b'{"activityId":"cut', b"[]", b"\xff\xfe\x00raw\x1b"]
    store.score(write(tmp_path / "a.jsonl", activity("a"), *bad))
    listed = cli("dead-letters", "list", *store.flag)
    assert listed.text.count("enqueueFromStream") == 3
    letters = letters_of(store)
    assert {letter["position"] for letter in letters} == {f"byte {len(activity('a')) + 1 + n}" for n in (0, 19, 22)}
    for letter in letters:
        assert letter["source"] == str(tmp_path / "a.jsonl")
        assert (letter["attempts"], letter["redrivenAt"]) == (1, None)
        shown = cli("dead-letters", "show", letter["deadLetterId"][:12], *store.flag, "--json").json
        assert {name: shown[name] for name in letter} == letter
        payload = base64.b64decode(shown["payloadBase64"])
        assert payload in bad
        assert letter["payloadBytes"] == len(payload)
        assert cli("dead-letters", "show", letter["deadLetterId"], *store.flag, "--raw").out == payload
    assert len(json_values(cli("dead-letters", "list", *store.flag, "--limit", "2", "--json").out)) == 2
    assert "2 of 3" in cli("dead-letters", "list", *store.flag, "--limit", "2").err
    assert json_values(cli("dead-letters", "list", *store.flag, "--worker", "scoreUsers", "--json").out) == []
    for unknown in ("zzz", ""):
        assert cli("dead-letters", "show", unknown, *store.flag).code == 2


def test_a_dry_run_of_redrive_changes_nothing(store, cli, tmp_path):
    store.score(write(tmp_path / "a.jsonl", b"[]", b"{}"))
    before = letters_of(store)
    assert cli("dead-letters", "redrive", *store.flag, "--dry-run", "--json").json["wouldRedrive"] == 2
    assert cli("dead-letters", "redrive", *store.flag, "--dry-run").text.startswith(
        "2 dead letters would be sent again\n"
    )
    assert letters_of(store) == before


def test_what_fails_again_stays_a_dead_letter_with_one_more_attempt(store, cli, tmp_path):
    store.score(write(tmp_path / "a.jsonl", b"[]"))
    for attempts in (2, 3):
        result = cli("dead-letters", "redrive", *store.flag, "--json")
        assert (result.code, became(result)) == (1, {"queued": 0, "rejected": 0, "failed": 1})
        (letter,) = letters_of(store)
        assert (letter["attempts"], letter["redrivenAt"]) == (attempts, None)
    assert [payload for _, _, payload in store.dead_letters()] == [b"[]"]


def test_letters_that_come_while_it_runs_are_of_another_redrive(store, cli, tmp_path):
    store.score(write(tmp_path / "a.jsonl", b"[]", b"{}"))
    connection = sqlite3.connect(store.path)
    with connection:
        connection.execute("UPDATE dead_letters SET written_at = written_at + 3600000 WHERE payload = X'7B7D'")
    connection.close()
    result = cli("dead-letters", "redrive", *store.flag, "--expected", "1", "--json")
    assert became(result) == {"queued": 0, "rejected": 0, "failed": 1}
    refused = cli("dead-letters", "redrive", *store.flag, "--expected", "2")
    assert refused.code == 2
    assert "1 letters match, not 2" in refused.err


def poison(store) -> None:
    """Makes every waiting message one that was received ten times."""
    connection = sqlite3.connect(store.path)
    with connection:
        connection.execute("UPDATE message_groups SET receives = 10, received_to = head_seq")
    connection.close()


def test_a_message_received_too_often_is_redriven_and_scored(store, make_store, cli, tmp_path):
    source = write(tmp_path / "a.jsonl", *(activity(f"{n}", f"user-{n}", occurredAt=START_MS + n) for n in range(3)))
    cli("run", "enqueueFromStream", "--source", source, *store.flag)
    bodies = store.query("SELECT body FROM messages ORDER BY seq")
    poison(store)
    given_up = cli("run", "scoreUsers", *store.flag, "--json")
    assert given_up.code == 1
    assert given_up.json["dead_lettered.too_many_receives"] == 3
    assert (store.waiting(), store.scores()) == (0, 0)
    letters = letters_of(store)
    assert {letter["reason"] for letter in letters} == {"too_many_receives"}
    assert {letter["activityId"] for letter in letters} == {"0", "1", "2"}
    assert sorted(payload for _, _, payload in store.dead_letters()) == sorted(body for (body,) in bodies)

    one = cli("dead-letters", "redrive", letters[0]["deadLetterId"], *store.flag, "--json")
    assert (one.code, became(one)) == (0, {"queued": 1, "rejected": 0, "failed": 0})
    assert one.err == f"work them off with: fan-identity run scoreUsers --store {store.address}\n"
    assert store.waiting() == 1
    rest = cli("dead-letters", "redrive", *store.flag, "--reason", "too_many_receives", "--json")
    assert rest.json["queued"] == 2, "what was sent again does not wait any more"
    assert cli("dead-letters", "redrive", *store.flag, "--json").json["queued"] == 0
    assert cli("run", "scoreUsers", *store.flag, "--json").json["scored"] == 3
    assert json_values(cli("dead-letters", "list", *store.flag, "--json").out) == []
    assert all(letter["redrivenAt"] for letter in letters_of(store))
    undisturbed = make_store("undisturbed")
    undisturbed.score(source)
    assert store.dump() == undisturbed.dump()


def test_a_message_redriven_that_fails_again_is_one_letter_with_more_attempts(store, cli, tmp_path):
    cli("run", "enqueueFromStream", "--source", write(tmp_path / "a.jsonl", activity("a")), *store.flag)
    for times in (1, 2, 3):
        poison(store)
        assert cli("run", "scoreUsers", *store.flag).code == 1
        (letter,) = letters_of(store)
        assert letter["redrivenAt"] is None
        assert letter["attempts"] >= 10 + times
        assert cli("dead-letters", "redrive", *store.flag, "--json").json["queued"] == 1
    assert cli("run", "scoreUsers", *store.flag, "--json").json["scored"] == 1


def test_letters_that_can_be_read_now_are_queued_or_rejected(store, cli, tmp_path):
    """As after an upgrade that reads what was malformed before: here the letters' bytes are put right."""
    store.score(write(tmp_path / "a.jsonl", b'{"n":1}', b'{"n":2}'))
    connection = sqlite3.connect(store.path)
    with connection:
        for letter, line in zip(letters_of(store), (activity("a"), activity("b", " ")), strict=True):
            values = (line, letter["deadLetterId"])
            connection.execute("UPDATE dead_letters SET payload = ? WHERE dead_letter_id = ?", values)
    connection.close()
    result = cli("dead-letters", "redrive", *store.flag, "--json")
    assert (result.code, became(result)) == (0, {"queued": 1, "rejected": 1, "failed": 0})
    assert cli("run", "scoreUsers", *store.flag, "--json").json["scored"] == 1
    assert store.ids_by_user() == {"fan": ["a"]}


# Interruptions


def test_ctrl_c_in_a_lookup_gives_no_traceback(filled, cli, tmp_path, until):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4_096)  # less than is written: the command waits for its reader
    running = cli.start("dump", *filled.flag, out=str(pipe))
    until(lambda: select.select([reader], [], [], 0)[0], "it writes")
    running.signal(signal.SIGINT)
    os.set_blocking(reader, True)
    while os.read(reader, 4_096):
        pass
    os.close(reader)
    result = running.wait()
    assert (result.code, result.err) == (130, "")
