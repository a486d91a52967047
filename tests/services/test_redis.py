"""The ARM cache on real Redis servers: the shared one, and private ones that are killed, full, encrypted, clustered."""

import datetime
import ipaddress
import json
import logging
import random
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.domain.keys import arm_cache_key, causal_version
from fan_identity.io.addresses import Address
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.redis_cache import PASSWORD_VARIABLE, RedisArmCache

PATIENCE = 60.0
SHARED_PORT = 16_390
SHORT = 0.5  # of seconds until a call gives up, where a test wants it to


def cache_at(port: int, *, scheme: str = "redis", at: str = "", path: str = "", **options: Any) -> RedisArmCache:
    deadline = options.pop("deadline_seconds", PATIENCE)
    address = Address(scheme, f"{at}127.0.0.1:{port}{path}", options)
    return RedisArmCache.of(address, "cache", deadline_seconds=deadline)


def value(user: str, risk: int = 3) -> dict[str, Any]:
    return {"global_user_id": user, "arm_risk": risk, "timestamp": 1, "score_date": "2026-11-27", "modelVersion": "m1"}


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


# The shared server


@pytest.fixture
def shared(server: Callable[[str], None]) -> redis.Redis:
    server("redis")
    return redis.Redis(port=SHARED_PORT)


@pytest.fixture
def cache(shared: redis.Redis) -> RedisArmCache:
    return cache_at(SHARED_PORT)


@pytest.fixture
def key(shared: redis.Redis) -> Iterator[Callable[[str], str]]:
    """Keys of the test's own, which end with it."""
    prefix = uuid.uuid4().hex
    yield lambda name: f"user:{prefix}{name}"
    for found in shared.scan_iter(f"user:{prefix}*", count=1_000):
        shared.delete(found)


def test_a_value_is_what_readers_of_the_reference_expect(
    shared: redis.Redis, cache: RedisArmCache, key: Callable[[str], str]
) -> None:
    cache.put_if_newer([(key("é"), "007#a", value("é"))])
    text = shared.get(key("é"))
    assert isinstance(text, bytes)
    fields = list(json.loads(text).items())
    assert fields == [*value("é").items(), ("version", "007#a")]
    assert cache.get(key("é")) == value("é")
    assert cache.get(key("unknown")) is None
    cache.check()


def test_newer_wins_and_the_same_version_changes_nothing(cache: RedisArmCache, key: Callable[[str], str]) -> None:
    for version, risk, expected in (("5", 1, 1), ("5", 2, 1), ("4", 3, 1), ("40", 3, 1), ("5a", 4, 4), ("6", 5, 5)):
        cache.put_if_newer([(key("a"), version, value("a", risk))])
        assert cache.get(key("a")) == value("a", expected), version
    cache.put_if_newer([(key("b"), version, value("b", int(version))) for version in "21453"])
    assert cache.get(key("b")) == value("b", 5)
    cache.put_if_newer([])


def test_whatever_the_order_and_the_threads_the_newest_stays(cache: RedisArmCache, key: Callable[[str], str]) -> None:
    versions = [f"{number:05d}#é{number}" for number in range(300)]
    writes = [(key(user), version, value(user, number)) for user in "abc" for number, version in enumerate(versions)]
    random.Random(2).shuffle(writes)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cache.put_if_newer, [writes[start : start + 20] for start in range(0, len(writes), 20)]))
    for user in "abc":
        assert cache.get(key(user)) == value(user, 299)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_versions_are_ordered_by_their_bytes(
    cache: RedisArmCache, key: Callable[[str], str], versions: list[str]
) -> None:
    name = key(uuid.uuid4().hex)
    cache.put_if_newer([(name, version, {"v": version}) for version in versions])
    assert cache.get(name) == {"v": max(versions, key=str.encode)}


def test_the_same_cause_under_newer_imports_wins_and_a_newer_activity_over_both(
    cache: RedisArmCache, key: Callable[[str], str]
) -> None:
    causes = [
        (1_000 + later, name, imports) for later in (0, 1) for name in ("a", "a\0", "b") for imports in (0, 1, 10)
    ]
    for seed in range(5):
        name, shuffled = key(str(seed)), random.Random(seed).sample(causes, len(causes))
        for number, cause in enumerate(shuffled):
            cache.put_if_newer([(name, causal_version(*cause), {"v": list(cause)})])
            assert cache.get(name) == {"v": list(max(shuffled[: number + 1]))}


def test_thousands_of_entries_are_written_though_the_server_forgot_the_script(
    shared: redis.Redis, cache: RedisArmCache, key: Callable[[str], str]
) -> None:
    shared.script_flush()
    entries = [(key(str(number)), "1", value(str(number), number % 5)) for number in range(1_203)]
    cache.put_if_newer(entries)
    texts = shared.mget([name for name, _, _ in entries])
    assert [json.loads(text)["arm_risk"] for text in texts] == [number % 5 for number in range(1_203)]


FOREIGN: dict[str, Callable[[redis.Redis, str], Any]] = {
    "text": lambda client, name: client.set(name, "hello"),
    "empty": lambda client, name: client.set(name, ""),
    "bytes": lambda client, name: client.set(name, b"\xff\x00"),
    "number": lambda client, name: client.set(name, "12"),
    "array": lambda client, name: client.set(name, '["version", "9"]'),
    "null": lambda client, name: client.set(name, "null"),
    "no version": lambda client, name: client.set(name, '{"arm_risk": 1}'),
    "version is a number": lambda client, name: client.set(name, '{"version": 9}'),
    "version is null": lambda client, name: client.set(name, '{"version": null}'),
    "deep": lambda client, name: client.set(name, "[" * 5_000 + "]" * 5_000),
    "hash": lambda client, name: client.hset(name, "version", "9"),
    "list": lambda client, name: client.rpush(name, "9"),
}
OBJECTS = {"no version": {"arm_risk": 1}, "version is a number": {}, "version is null": {}}


def test_what_others_wrote_is_older_than_any_version_and_fails_no_batch_mate(
    shared: redis.Redis, cache: RedisArmCache, key: Callable[[str], str]
) -> None:
    for name, write in FOREIGN.items():
        write(shared, key(name))
        assert cache.get(key(name)) == OBJECTS.get(name), name
    names = [*FOREIGN, "mate"]
    cache.put_if_newer([(key(name), "1", value(name)) for name in names])
    for name in names:
        assert cache.get(key(name)) == value(name), name


@pytest.mark.parametrize("user", ["\0", "\r\nSET x y\r\n", "{a}b", "é", "\U0001f600", "x" * 5_000, "' }"])
def test_hostile_user_ids_keep_to_their_key(
    shared: redis.Redis, cache: RedisArmCache, key: Callable[[str], str], user: str
) -> None:
    name = arm_cache_key(key(user))
    other = arm_cache_key(key(user + "x"))
    try:
        cache.put_if_newer([(name, f"1#{user}", value(user)), (other, f"1#{user}", value("other"))])
        assert cache.get(name) == value(user)
        assert cache.get(other) == value("other")
    finally:
        shared.delete(name, other)


def test_deleted_keys_are_unknown_and_patterns_reach_only_themselves(
    cache: RedisArmCache, key: Callable[[str], str]
) -> None:
    users = ["*", "a", "[a]", "a*", "?", "\\a", "user:a", "{a}", "a\r\nDEL b"]
    cache.put_if_newer([(key(user), "5", value(user)) for user in users])
    for gone in range(len(users)):
        cache.delete([key(users[gone])])
        assert [cache.get(key(user)) is None for user in users] == [number <= gone for number in range(len(users))]
    cache.delete([])
    cache.put_if_newer([(key("a"), "1", value("a"))])
    assert cache.get(key("a")) == value("a"), "a deleted key has no version"


def test_a_value_with_a_version_of_its_own_is_refused(cache: RedisArmCache, key: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match="version"):
        cache.put_if_newer([(key("a"), "1", {"version": "2"})])


def test_wrong_databases_and_schemes_name_the_remedy(shared: redis.Redis) -> None:
    with pytest.raises(UsageError, match=r"^--cache: redis://127.0.0.1:16390/9999 has no database"):
        cache_at(SHARED_PORT, path="/9999").check()
    with pytest.raises(UsageError, match="is no cluster; write redis://"):
        cache_at(SHARED_PORT, scheme="redis-cluster").check()


# Private servers


class PrivateRedis:
    """A redis-server on a free port, started and killed at will; it keeps nothing."""

    def __init__(self, folder: Path, *arguments: str, tls: bool = False) -> None:
        self._folder = folder
        self._arguments = arguments
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        for _ in range(5):  # another process may take the port meanwhile
            self.port = free_port()
            if self.start():
                return
        pytest.fail(f"redis-server does not start: {(folder / 'log').read_text()[-500:]}")

    def start(self) -> bool:
        """Starts it; False where it ended at once."""
        port = ("--port", "0", "--tls-port") if self._tls else ("--port",)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", "--bind", "127.0.0.1", "--save", "", *port, str(self.port), *self._arguments],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        process = self._process
        until(lambda: process.poll() is not None or accepts(self.port), "redis-server listens")
        return process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, **options)


def free_port() -> int:
    """A free port, as is the one 10,000 above it (a cluster's bus); both below those the system gives out."""
    while True:
        port = random.randrange(20_000, 22_700)
        if not accepts(port) and all(can_bind(number) for number in (port, port + 10_000)):
            return port


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., PrivateRedis]]:
    """Starts private servers, which end with the test."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server in PATH: apt-get install redis-server")
    started: list[PrivateRedis] = []

    def start_one(*arguments: str, **options: Any) -> PrivateRedis:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(PrivateRedis(folder, *arguments, **options))
        return started[-1]

    yield start_one
    for one in started:
        one.kill()


def in_background(do: Callable[[], Any]) -> Future[Any]:
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(do())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def test_a_server_that_is_killed_and_comes_back_in_the_middle_is_survived(start: Callable[..., PrivateRedis]) -> None:
    private = start()
    cache = cache_at(private.port)
    cache.put_if_newer([("user:a", "1", value("a", 1))])
    private.kill()
    # Stands in the server's place until the cache has tried it.
    with socket.create_server(("127.0.0.1", private.port)) as stand_in:
        stand_in.settimeout(PATIENCE)
        writing = in_background(
            lambda: cache.put_if_newer([("user:a", "2", value("a", 2)), ("user:b", "1", value("b"))])
        )
        stand_in.accept()[0].close()
    assert private.start()
    writing.result(PATIENCE)
    assert cache.get("user:a") == value("a", 2)
    assert cache.get("user:b") == value("b")


def test_a_server_that_stays_away_is_named_without_credentials(start: Callable[..., PrivateRedis]) -> None:
    private = start()
    private.kill()
    cache = cache_at(private.port, at="user:s3cret@", path="/2", deadline_seconds=SHORT)
    for call in (lambda: cache.put_if_newer([("user:a", "1", {})]), lambda: cache.get("user:a")):
        with pytest.raises(BackendUnavailableError) as raised:
            call()
        assert str(raised.value) == f"--cache: redis://127.0.0.1:{private.port}/2 is out of reach (ConnectionError)"


def make_full(client: redis.Redis) -> Callable[[], Any]:
    client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)


def make_replica(client: redis.Redis) -> Callable[[], Any]:
    client.replicaof("127.0.0.1", 1)
    return lambda: client.replicaof("NO", "ONE")


@pytest.mark.parametrize(("spoil", "code"), [(make_full, "OOM"), (make_replica, "READONLY")])
def test_a_server_that_cannot_write_is_waited_for(
    start: Callable[..., PrivateRedis],
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[redis.Redis], Callable[[], Any]],
    code: str,
) -> None:
    private = start()
    client = private.client()
    entries = [(f"user:s3cret{number}", "1", value("s3cret")) for number in range(700)]
    mend = spoil(client)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BackendUnavailableError, match=r"^--cache: redis://127.0.0.1:\d+/0 is out of reach") as raised:
        cache_at(private.port, deadline_seconds=SHORT).put_if_newer(entries)
    assert "s3cret" not in str(raised.value)

    def refused() -> int:
        return client.info("errorstats").get(f"errorstat_{code}", {}).get("count", 0)

    before = refused()
    assert before > 0
    writing = in_background(lambda: cache_at(private.port).put_if_newer(entries))
    until(lambda: refused() > before, "the cache has tried again")
    mend()
    writing.result(PATIENCE)
    assert client.dbsize() == 700
    assert "s3cret" not in "".join(str(vars(record)) for record in caplog.records)


def test_the_password_comes_from_the_environment_first_and_is_never_told(
    start: Callable[..., PrivateRedis], monkeypatch: pytest.MonkeyPatch
) -> None:
    private = start("--requirepass", "s3cret")
    private.client(password="s3cret").acl_setuser(
        "writer", enabled=True, passwords=["+pa@ss"], keys="*", commands=["+@all"]
    )
    private.client(password="s3cret").acl_setuser(
        "reader", enabled=True, passwords=["+pass"], keys="*", commands=["+get"]
    )
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    cache_at(private.port, at=":s3cret@").put_if_newer([("user:a", "1", value("a"))])
    cache_at(private.port, at="writer:pa%40ss@").put_if_newer([("user:b", "1", value("b"))])
    for at in ("", ":wrong@", "writer:s3cret@", "reader:pass@"):
        with pytest.raises(UsageError, match=f"^--cache: redis://127.*; set {PASSWORD_VARIABLE}") as raised:
            cache_at(private.port, at=at).put_if_newer([("user:s3cret", "1", value("a"))])
        assert not any(word in str(raised.value) for word in ("s3cret", "wrong", "pass@"))
    monkeypatch.setenv(PASSWORD_VARIABLE, "s3cret")
    for at in ("", ":wrong@"):
        assert cache_at(private.port, at=at).get("user:a") == value("a")


def certificate(folder: Path) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_tls_trusts_the_authority_the_address_names_and_no_other(
    start: Callable[..., PrivateRedis], tmp_path: Path
) -> None:
    built = subprocess.run(["ldd", str(shutil.which("redis-server"))], capture_output=True, text=True, check=False)
    if "libssl" not in built.stdout:
        pytest.skip("this redis-server is built without TLS")
    cert, key = certificate(tmp_path)
    options = ("--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
    private = start(*options, tls=True)
    cache = cache_at(private.port, scheme="rediss", ca=cert)
    cache.put_if_newer([("user:a", "1", value("a"))])
    assert cache.get("user:a") == value("a")
    with pytest.raises(UsageError, match=r"certificate that is not trusted; \?ca=file"):
        cache_at(private.port, scheme="rediss").check()
    with pytest.raises(BackendUnavailableError):
        cache_at(private.port, deadline_seconds=SHORT).get("user:a")


@pytest.fixture
def cluster(start: Callable[..., PrivateRedis]) -> list[PrivateRedis]:
    """Three nodes without replicas."""
    if shutil.which("redis-cli") is None:
        pytest.skip("no redis-cli in PATH: apt-get install redis-tools")
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")
    nodes = [start(*options) for _ in range(3)]
    addresses = [f"127.0.0.1:{node.port}" for node in nodes]
    command = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "0", "--cluster-yes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for node in nodes:
        client: Any = node.client()
        until(lambda client=client: client.cluster("INFO")["cluster_state"] == "ok", "the cluster is up")
    return nodes


def test_a_cluster_is_written_by_slot_and_survives_a_nodes_restart(cluster: list[PrivateRedis]) -> None:
    cache = cache_at(cluster[0].port, scheme="redis-cluster")
    cache.check()
    writes = [(f"user:{number % 90}", f"{number:04d}", value("x", number)) for number in range(900)]
    random.Random(4).shuffle(writes)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cache.put_if_newer, [writes[start::4] for start in range(4)]))
    assert [cache.get(f"user:{user}") for user in range(90)] == [value("x", 810 + user) for user in range(90)]
    assert [node.client().dbsize() > 0 for node in cluster] == [True] * 3

    with pytest.raises(UsageError, match="is a cluster; write redis-cluster://"):
        cache_at(cluster[0].port).put_if_newer([(f"user:{user}", "0", {}) for user in range(9)])

    cache.delete([f"user:{user}" for user in range(30)])
    cache.delete(["user:0", "user:unknown"])
    assert [cache.get(f"user:{user}") is None for user in range(90)] == [user < 30 for user in range(90)]
    cache.put_if_newer(writes)

    for node in cluster:
        node.client().script_flush()
    cluster[1].kill()
    with socket.create_server(("127.0.0.1", cluster[1].port)) as stand_in:
        stand_in.settimeout(PATIENCE)
        newest = [(f"user:{user}", "9999", value("y", user)) for user in range(90)]
        writing = in_background(lambda: cache.put_if_newer(newest))
        stand_in.accept()[0].close()
    assert cluster[1].start()
    writing.result(PATIENCE)
    assert [cache.get(f"user:{user}") for user in range(90)] == [value("y", user) for user in range(90)]


def test_a_cluster_with_a_primary_away_is_not_well(cluster: list[PrivateRedis]) -> None:
    """As checkLiveness asks: a third of the fans have no entry while it is away."""
    cache = cache_at(cluster[0].port, scheme="redis-cluster")
    cache.check_once()
    assert cache.server_version().split(".")[0].isdigit()
    cluster[2].kill()
    with pytest.raises(BackendUnavailableError, match="redis-cluster://"):
        cache.check_once()
    assert cluster[2].start()

    def well() -> bool:
        try:
            cache.check_once()
        except BackendUnavailableError:
            return False
        return True

    until(well, "it answers again")
