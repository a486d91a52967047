"""Versions, and pairs of them, that are known not to work: what goes wrong, what helps, and where that is written.

``docs/health.md`` shows the same table; a test holds the two together.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

Facts = Mapping[str, str]
"""Versions by name: ``python``, ``sqlite``, a distribution's name as the package index has it, ``redis server``,
``runner`` (the runners of live workers, by Beam's names)."""

Version = tuple[int, ...]


class Broken(msgspec.Struct, frozen=True):
    """One thing known not to work.

    Attributes:
        what: which versions, for people.
        applies: whether it does, of the facts of this installation.
        problem: what goes wrong.
        remedy: what helps.
        source: where that is written.
        status: ``failed`` where the program must not run so, ``warning`` where it works around it or only may suffer.
    """

    what: str
    applies: Callable[[Facts], bool]
    problem: str
    remedy: str
    source: str
    status: Literal["failed", "warning"] = "failed"


def version_of(text: str) -> Version:
    """The numbers a version begins with.

    >>> version_of("2.77.0rc1")
    (2, 77, 0)
    """
    numbers: list[int] = []
    for part in text.split("."):
        digits = "".join(char for char in part[: len(part) - len(part.lstrip("0123456789"))] if char.isascii())
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def _below(name: str, *limit: int) -> Callable[[Facts], bool]:
    return lambda facts: name in facts and version_of(facts[name]) < limit


def _wal_race(facts: Facts) -> bool:
    found = version_of(facts.get("sqlite", ""))
    mended = found >= (3, 51, 3) or (3, 50, 7) <= found < (3, 51) or (3, 44, 6) <= found < (3, 45)
    return bool(found) and not mended


def _runs_on(*runners: str) -> Callable[[Facts], bool]:
    return lambda facts: any(runner in facts.get("runner", "").split() for runner in runners)


BROKEN: Final = (
    Broken(
        "Python < 3.11",
        _below("python", 3, 11),
        "the package's root on PYTHONPATH hides the standard library's io",
        "use Python 3.11 to 3.13",
        "docs/architecture.md; setup.py",
    ),
    Broken(
        "SQLite < 3.35",
        _below("sqlite", 3, 35),
        "no DELETE … RETURNING, which stores need",
        "use a Python built with SQLite 3.35 or later",
        "https://sqlite.org/lang_returning.html",
    ),
    Broken(
        "SQLite 3.7 to 3.51.2, but for 3.44.6 and 3.50.7",
        _wal_race,
        "the WAL-reset race: two connections that write and checkpoint in the same instant can, very rarely, "
        "damage a store",
        "for stores that several processes write, a Python built with SQLite 3.51.3, 3.50.7 or 3.44.6; or DynamoDB "
        "and SQS",
        "https://sqlite.org/wal.html#walresetbug",
        "warning",
    ),
    Broken(
        "Apache Beam < 2.76",
        _below("apache-beam", 2, 76),
        "checkpoints of unbounded sources grow without limit, and workers leak memory",
        "install apache-beam 2.77 or later",
        "Beam 2.76.0 release notes; docs/running-on-flink.md",
    ),
    Broken(
        "Apache Beam >= 2.51 with a job server of Flink 1.16 (Beam 2.50, the last for it)",
        _runs_on("PortableRunner"),
        "each resume of a source leaks a state name into the checkpoint: about 0.1 MB a checkpoint at our pace",
        "a job server of the SDK's own version, for Flink 1.19 or later; else restart the job from a savepoint now and "
        "then",
        "docs/running-on-flink.md",
        "warning",
    ),
    Broken(
        "PrismRunner, any version, as a service",
        _runs_on("PrismRunner"),
        "nothing it holds is durable: a worker that is killed fails the job, and over about 100 busy keys stall it",
        "Flink or Dataflow for what has to stay up; the DirectRunner in one process",
        "docs/decisions/0002-streaming-and-draining.md",
        "warning",
    ),
    Broken(
        "PyJWT < 2.13",
        _below("pyjwt", 2, 13),
        "an unknown crit is accepted before 2.12, and before 2.13 a list of algorithms can be passed by",
        "install pyjwt 2.15 or later",
        "GHSA-752w-5fwx-jx9f, GHSA-jq35-7prp-9v3f, GHSA-xgmm-8j9v-c9wx",
    ),
    Broken(
        "redis-py < 4.5.5",
        _below("redis", 4, 5, 5),
        "a cancelled lookup leaves its answer to the next one: a fan may be given another's score",
        "install redis 6.4 or later",
        "CVE-2023-28858, CVE-2023-28859",
    ),
    Broken(
        "Redis server < 6",
        _below("redis server", 6),
        "no users (ACL), so redis://user@host is refused",
        "use Redis 6 or later, or an address without a user",
        "https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/",
        "warning",
    ),
)
"""What is known, in the order it is shown."""


def broken(facts: Facts) -> list[Broken]:
    """What of it applies to an installation.

    >>> [one.what for one in broken({"apache-beam": "2.75.0", "python": "3.12.1"})]
    ['Apache Beam < 2.76']
    """
    return [one for one in BROKEN if one.applies(facts)]
