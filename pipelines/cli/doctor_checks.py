"""What ``fan-identity doctor`` looks at: versions, pairs known to be broken, parts. Each check says what it found."""

import platform
import sqlite3
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal

import msgspec

from ...domain.known_broken import BROKEN, broken
from ...domain.liveness import Probed
from ...io.backends import (
    open_model,
    scheme_of,
    sqlite_store,
)
from ...io.errors import BackendUnavailableError, FanIdentityError
from ...io.probes import Part, Prober
from ...io.time_limits import within
from ...serving.settings import ServingSettings

Status = Literal["ok", "warning", "failed"]

PACKAGES: Final = ("apache-beam", "boto3", "confluent-kafka", "pyjwt", "redis")
"""Distributions whose versions matter."""

SLOW_SECONDS: Final = 15.0
"""For what takes several questions one after the other."""


class Found(msgspec.Struct, frozen=True):
    """What a check found.

    Attributes:
        section: it belongs to.
        check: what was looked at.
        status: ``warning`` is worth knowing, ``failed`` needs somebody.
        detail: one line for people.
        data: the same for machines.
        code: the exit code it asks for; 0 for none.
    """

    section: str
    check: str
    status: Status
    detail: str
    data: dict[str, Any] = {}
    code: int = 0


def _failed(section: str, check: str, error: Exception) -> Found:
    code = error.exit_code if isinstance(error, FanIdentityError) else BackendUnavailableError.exit_code
    text = str(error) if isinstance(error, FanIdentityError) else f"it could not be told ({type(error).__name__})"
    return Found(section, check, "failed", text, code=code)


def tried(section: str, check: str, seconds: float, look: Callable[[], list[Found]]) -> list[Found]:
    """What a look finds within a time; a failure where it takes longer or raises."""
    try:
        return within(seconds, look, check)
    except Exception as error:  # the other checks go on, whatever it is
        return [_failed(section, check, error)]


def of_versions(prism: str | None) -> list[Found]:
    """The machine: Python, SQLite, packages, runners."""
    section = "versions"
    return [
        Found(section, "Python", "ok", f"{platform.python_version()} ({sys.platform})"),
        Found(section, "SQLite", "ok", sqlite3.sqlite_version),
        *(Found(section, name, "ok", _version(name)) for name in PACKAGES),
        Found(section, "runner DirectRunner", "ok", "in this process, batch and streaming"),
        _prism(prism),
    ]


def _prism(setting: str | None) -> Found:
    from ..runner import find_prism  # noqa: PLC0415 - imports Beam

    try:
        return Found("versions", "runner PrismRunner", "ok", find_prism(setting))
    except FanIdentityError as error:
        return Found("versions", "runner PrismRunner", "warning", f"{error} (only needed for -- --runner=PrismRunner)")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def of_pairs(runners: Sequence[str], redis_version: str | None) -> list[Found]:
    """Versions and pairs known to be broken that this installation has.

    Args:
        runners: of the live workers.
        redis_version: of the ARM cache's server; None where it is not known.
    """
    facts = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "runner": " ".join(sorted(set(runners))),
        **{name: _version(name) for name in PACKAGES if _version(name) != "not installed"},
        **({} if redis_version is None else {"redis server": redis_version}),
    }
    known = broken(facts)
    if not known:
        return [Found("known broken", "pairs", "ok", f"none of the {len(BROKEN)} known applies")]
    return [
        Found(
            "known broken",
            one.what,
            one.status,
            f"{one.problem}; {one.remedy} ({one.source})",
            code=BackendUnavailableError.exit_code if one.status == "failed" else 0,
        )
        for one in known
    ]


def redis_version(settings: ServingSettings) -> str | None:
    """The version of the ARM cache's server, where it is Redis and says so."""
    if settings.cache is None or not scheme_of(settings.cache).startswith("redis"):
        return None
    from ...io.addresses import parse_address  # noqa: PLC0415 - with Redis alone
    from ...io.redis_cache import RedisArmCache  # noqa: PLC0415

    cache = RedisArmCache.of(parse_address(settings.cache, "cache"), "cache")
    try:
        return within(settings.probe_deadline.total_seconds(), cache.server_version, "cache")
    except FanIdentityError:
        return None  # its probe tells


def of_model(address: str | None) -> list[Found]:
    """The model that comes with the package, or the file in its place; one behind HTTP is a part."""
    if address is not None and scheme_of(address) in ("http", "https"):
        return []
    return tried(
        "versions",
        "model",
        SLOW_SECONDS,
        lambda: [Found("versions", "model", "ok", open_model(address).scorecard.model_version)],
    )


def of_parts(parts: Sequence[Part], seconds: float) -> list[Found]:
    """Every part, as checkLiveness probes it."""
    return [_of_probe(one) for one in Prober(parts, seconds).round()]


def _of_probe(one: Probed) -> Found:
    data = {
        "address": one.address,
        "settings": list(one.settings),
        "up": one.up,
        "ms": round(one.seconds * 1_000, 1),
    }
    others = ", ".join(name for name in one.settings if name != one.part)
    also = f" (also {others})" if others else ""
    if one.up:
        text = f"{one.address} answers in {one.seconds * 1_000:.0f} ms{also}"
        return Found("parts", one.part, "ok", text, data)
    if is_missing_store(one.address):
        text = f"{one.address} does not exist yet; it is made when first used{also}"
        return Found("parts", one.part, "warning", text, data)
    return Found("parts", one.part, "failed", f"{one.problem}{also}", data, BackendUnavailableError.exit_code)


def is_missing_store(text: str) -> bool:
    """Whether an address is of an SQLite file that is not there, which nobody but its first user makes."""
    return scheme_of(text) == "sqlite" and not sqlite_store(text.partition("?")[0], "store").path.exists()
