"""API keys: random, shown once, stored hashed, compared in constant time, taken and revoked while services run."""

import ast
import hashlib
import hmac
import inspect
import json
import os
import stat
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.domain.access import READ_ANY_SCOPE, CallerKind
from fan_identity.io.errors import UsageError
from fan_identity.serving.api_keys import KEY_PREFIX, ApiKeys, create_key, read_keys, revoke_key


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


@pytest.fixture
def clock() -> Clock:
    return Clock()


# What is stored


def test_keys_are_stored_hashed(file):
    key = create_key(file, "box-office", [READ_ANY_SCOPE], 600)
    text = file.read_text()
    assert json.loads(text) == {
        "name": "box-office",
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "scopes": [READ_ANY_SCOPE],
        "per_minute": 600,
    }
    assert key not in text and key.removeprefix(KEY_PREFIX) not in text
    assert [path.name for path in file.parent.iterdir() if key in path.read_text()] == []


def test_keys_have_256_random_bits_and_none_is_like_another(file):
    keys = {create_key(file, f"key-{number}", [], 1) for number in range(20)}
    assert len(keys) == 20
    # 43 characters of 6 bits: 32 bytes.
    assert {len(key.removeprefix(KEY_PREFIX)) for key in keys} == {43}
    body = "".join(key.removeprefix(KEY_PREFIX) for key in keys)
    assert len(set(body)) > 50, "all of base64url's alphabet, more or less"


def test_the_file_is_its_owners_alone(file):
    create_key(file, "a", [], 1)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_changed_file_keeps_its_mode_and_a_link_stays_one(file, tmp_path):
    link = tmp_path / "link.jsonl"
    create_key(file, "a", [], 1)
    file.chmod(0o640)
    link.symlink_to(file)
    create_key(link, "b", [], 1)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [key.name for key in read_keys(file)] == ["a", "b"]


def test_keys_made_at_the_same_time_are_all_there(file):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create_key(file, f"key-{number}", [], 1), range(24)))
    keys = ApiKeys(file)
    assert sorted(key.name for key in map(keys.find, made) if key) == sorted(f"key-{number}" for number in range(24))


def test_a_full_disk_leaves_the_file_as_it_was(file, tmp_path, full_disk):
    small = full_disk(8_192) / "keys.jsonl"
    key = create_key(small, "a", [], 1)
    before = small.read_bytes()
    (small.parent / "filler").write_bytes(b"x" * 4_096)
    with pytest.raises(UsageError, match="cannot be written"):
        create_key(small, "b", [], 1)
    assert small.read_bytes() == before
    assert ApiKeys(small).find(key) is not None


# Who is found


def test_who_shows_a_key_is_its_name_with_its_scopes(file):
    key = create_key(file, "box-office", [READ_ANY_SCOPE], 600)
    create_key(file, "other", [], 7)
    found = ApiKeys(file).find(key)
    assert found is not None
    caller = found.identity
    assert (caller.kind, caller.subject, caller.scopes) == (CallerKind.API_KEY, "box-office", {READ_ANY_SCOPE})
    assert caller.user_id is None and caller.reads_any_fan
    assert key not in repr(found) + repr(caller)


def test_every_key_of_many_is_found(file):
    made = {f"key-{number}": create_key(file, f"key-{number}", [], number + 1) for number in range(20)}
    keys = ApiKeys(file)
    for name, key in made.items():
        found = keys.find(key)
        assert found is not None and found.name == name
        assert keys.named(name) == found


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_key_changed_anywhere_is_none(file, data):
    if not file.exists():
        file.with_suffix(".key").write_text(create_key(file, "a", [], 1))
    key = file.with_suffix(".key").read_text()
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.text(max_size=3).filter(lambda text: text != key[place]))
    assert ApiKeys(file).find(key[:place] + other + key[place + 1 :]) is None


@pytest.mark.parametrize("shown", ["", " ", "x" * 1_000_000, "\ud800", "\0", KEY_PREFIX])
def test_what_is_no_key(file, shown):
    create_key(file, "a", [], 1)
    assert ApiKeys(file).find(shown) is None


def test_the_hash_itself_is_no_key(file):
    create_key(file, "a", [], 1)
    stored = read_keys(file)[0].sha256
    keys = ApiKeys(file)
    assert keys.find(stored) is None and keys.find(KEY_PREFIX + stored) is None


def test_keys_are_compared_in_constant_time():
    """By structure: digests go through ``hmac.compare_digest``, for all keys, and nothing ends the loop early."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(ApiKeys.find)))
    (loop,) = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    assert not [node for node in ast.walk(loop) if isinstance(node, ast.Break | ast.Return | ast.Continue | ast.Raise)]
    called = [ast.unparse(node.func) for node in ast.walk(loop) if isinstance(node, ast.Call)]
    assert called == ["hmac.compare_digest"]
    assert not [node for node in ast.walk(loop) if isinstance(node, ast.Compare)], "no == beside it"
    assert "_keys" in ast.unparse(loop.iter)


def test_all_keys_are_compared_whichever_is_shown(file, monkeypatch):
    made = [create_key(file, f"key-{number}", [], 1) for number in range(5)]
    keys = ApiKeys(file)
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr("fan_identity.serving.api_keys.hmac.compare_digest", counting)
    for shown in (made[0], made[4], "wrong"):
        compared.clear()
        keys.find(shown)
        assert compared == [(32, 32)] * 5


# While services run


def test_a_new_key_is_taken_and_a_revoked_one_refused_within_a_second(file, clock):
    first = create_key(file, "first", [], 1)
    keys = ApiKeys(file, clock)
    second = create_key(file, "second", [], 1)
    revoke_key(file, "first")
    clock.now += 1
    assert keys.find(second) is not None
    assert keys.find(first) is None and keys.named("first") is None


def test_the_file_is_looked_at_once_a_second(file, clock):
    keys_before = create_key(file, "first", [], 1)
    keys = ApiKeys(file, clock)
    revoke_key(file, "first")
    clock.now += 0.5
    assert keys.find(keys_before) is not None


@pytest.mark.parametrize("spoil", ["malformed", "gone", "open"])
def test_a_file_spoilt_while_services_run_locks_nobody_out_and_is_told_once(file, clock, caplog, spoil):
    key = create_key(file, "a", [], 1)
    keys = ApiKeys(file, clock)
    good = file.read_bytes()
    if spoil == "malformed":
        file.write_bytes(good + b"{half")
    elif spoil == "gone":
        file.unlink()
    else:
        file.chmod(0o604)
    for _ in range(3):
        clock.now += 1
        assert keys.find(key) is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    file.unlink(missing_ok=True)
    file.write_bytes(b"")
    file.chmod(0o600)
    clock.now += 1
    assert keys.find(key) is None, "once the file is good again, it counts"


# Files that cannot be used


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666])
def test_a_file_open_to_others_is_refused(file, mode):
    create_key(file, "a", [], 1)
    file.chmod(mode)
    with pytest.raises(UsageError, match=r"setting api_keys: .*chmod o="):
        ApiKeys(file)
    file.chmod(0o640)
    ApiKeys(file)


GOOD = {"name": "a", "sha256": "0" * 64, "scopes": [], "per_minute": 1}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "no JSON object"),
        ("[]", "no JSON object"),
        ('"fik_secret"', "no JSON object"),
        ("fik_secret", "no JSON object"),
        ("\ud800", "no JSON object"),
        ({**GOOD, "sha256": "fik_secret"}, "field sha256 is wrong"),
        ({**GOOD, "sha256": "0" * 63}, "field sha256 is wrong"),
        ({**GOOD, "sha256": "0" * 64 + "\n"}, "field sha256 is wrong"),
        ({**GOOD, "sha256": "A" * 64}, "field sha256 is wrong"),
        ({**GOOD, "name": ""}, "field name is wrong"),
        ({**GOOD, "name": "a b"}, "field name is wrong"),
        ({**GOOD, "name": "a\n"}, "field name is wrong"),
        ({**GOOD, "name": "x" * 65}, "field name is wrong"),
        ({**GOOD, "scopes": "x"}, "field scopes is wrong"),
        ({**GOOD, "scopes": ["a b"]}, "field scopes is wrong"),
        ({**GOOD, "per_minute": 0}, "field per_minute is wrong"),
        ({**GOOD, "per_minute": "1"}, "field per_minute is wrong"),
        ({**GOOD, "per_minute": 1e9}, "field per_minute is wrong"),
        ({**GOOD, "more": 1}, "no JSON object"),
        ({"name": "a"}, "no JSON object"),
    ],
    ids=str,
)
def test_a_malformed_line_is_named_and_not_quoted(file, line, what):
    text = line if isinstance(line, str) else json.dumps(line)
    file.write_bytes(b"\n" + json.dumps(GOOD | {"name": "z"}).encode() + b"\n" + text.encode(errors="surrogatepass"))
    file.chmod(0o600)
    with pytest.raises(UsageError) as refused:
        ApiKeys(file)
    assert str(refused.value).startswith(f"setting api_keys: {file}: line 3: {what}")
    assert "fan-identity api-keys create" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_name_twice_is_refused(file):
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD) + "\n")
    file.chmod(0o600)
    with pytest.raises(UsageError, match="line 2: a key of this name stands above"):
        ApiKeys(file)


def test_a_missing_file_is_named(file):
    with pytest.raises(UsageError, match=r"setting api_keys: .*keys.jsonl: cannot be read: No such file"):
        ApiKeys(file)


# The command line


def test_keys_by_the_command_line(cli, file):
    made = cli("api-keys", "create", "box-office", "--scope", READ_ANY_SCOPE, "--per-minute", "60", "--file", file)
    assert made.code == 0
    key = made.out.decode().strip()
    found = ApiKeys(file).find(key)
    assert found is not None and (found.name, found.per_minute) == ("box-office", 60)
    assert key not in made.err

    env = {"FAN_IDENTITY_API_KEYS": str(file)}
    shown = cli("api-keys", "create", "second", "--json", env=env)
    assert ApiKeys(file).find(json.loads(shown.out)["key"]) is not None

    listed = cli("api-keys", "list", env=env)
    assert "box-office" in listed.out.decode() and found.sha256 not in listed.out.decode()
    as_json = [json.loads(line) for line in cli("api-keys", "list", "--json", env=env).out.splitlines()]
    assert as_json[0] == {"name": "box-office", "scopes": [READ_ANY_SCOPE], "perMinute": 60}

    assert cli("api-keys", "revoke", "box-office", env=env).code == 0
    assert ApiKeys(file).find(key) is None


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["create", "a"], "--file"),
        (["create", "a b", "--file", "k"], "NAME"),
        (["create", "a", "--scope", "fanscore:write", "--file", "k"], "--scope"),
        (["create", "a", "--per-minute", "0", "--file", "k"], "--per-minute"),
        (["list", "--file", "k"], "cannot be read"),
        (["revoke", "a", "--file", "k"], "no key of this name"),
        (["create", "a", "--file", "none/k"], "cannot be written"),
    ],
    ids=str,
)
def test_wrong_usage_ends_with_2_and_one_line(cli, tmp_path, arguments, what):
    done = cli("api-keys", *arguments, folder=tmp_path)
    assert done.code == 2
    assert what in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("command", [[], ["create"], ["list"], ["revoke"]], ids=str)
def test_help(cli, command):
    done = cli("api-keys", *command, "--help")
    assert done.code == 0
    assert not command or b"Examples:" in done.out


def test_a_name_taken_is_refused_and_nothing_is_lost(file):
    key = create_key(file, "a", [], 1)
    with pytest.raises(UsageError, match="there is a key of this name"):
        create_key(file, "a", [], 1)
    assert ApiKeys(file).find(key) is not None
    assert os.access(file, os.R_OK)
