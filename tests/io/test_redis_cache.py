"""The ARM cache's addresses: what they mean, and that no password is ever told."""

import pickle
from pathlib import Path

import pytest

from fan_identity.io.addresses import Address
from fan_identity.io.errors import UsageError
from fan_identity.io.redis_cache import RedisArmCache


def address_of(text: str, **options: str) -> Address:
    scheme, _, target = text.partition("://")
    return Address(scheme, target, options)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://cache", "redis://cache:6379/0"),
        ("redis://cache:6390/3", "redis://cache:6390/3"),
        ("redis://127.0.0.1:1/", "redis://127.0.0.1:1/0"),
        ("redis://[::1]:7/0", "redis://[::1]:7/0"),
        ("rediss://user:s3cret@cache/1", "rediss://cache:6379/1"),
        ("redis://:s3cret@cache", "redis://cache:6379/0"),
        ("redis-cluster://u:s3cret%40%2F@cache:7000", "redis-cluster://cache:7000"),
        ("rediss-cluster://cache/0", "rediss-cluster://cache:6379"),
    ],
)
def test_an_address_is_shown_without_credentials(text: str, shown: str) -> None:
    cache = RedisArmCache.of(address_of(text), "cache")
    assert str(cache._server) == shown
    assert "s3cret" not in repr(cache._server)
    assert isinstance(pickle.loads(pickle.dumps(cache)), RedisArmCache)


def test_credentials_are_percent_decoded() -> None:
    server = RedisArmCache.of(address_of("redis://us%65r:s3cret%40%2F@cache"), "cache")._server
    assert (server.user, server.password) == ("user", "s3cret@/")


@pytest.mark.parametrize(
    "text",
    [
        "redis://",
        "redis:///0",
        "redis://:s3cret@",
        "redis://cache/x",
        "redis://cache/-1",
        "redis://cache/²",
        "redis://cache/0/1",
        "redis://cache:s3cret",
        "redis://cache:70000",
        "redis://u:s3cret#@cache",
        "redis://[::1",
        "redis-cluster://cache/1",
        "memcached://cache",
    ],
)
def test_a_wrong_address_names_the_setting_and_no_password(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--cache: .*; write|^--cache: write ") as raised:
        RedisArmCache.of(address_of(text), "cache")
    assert "s3cret" not in str(raised.value)


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no option 'cert'"):
        RedisArmCache.of(address_of("rediss://cache", cert="x"), "cache")
    with pytest.raises(UsageError, match="option ca names no file"):
        RedisArmCache.of(address_of("rediss://cache", ca=str(tmp_path / "none.pem")), "cache")
