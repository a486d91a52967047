"""Which dead letters a request means: as a filter, as options of the command, and as the audit log may have it."""

from collections.abc import Collection
from typing import Annotated, Final, Literal

import msgspec

from ...domain.activity import MalformedRecordError, format_time_ms, parse_time_ms
from ...domain.dead_letters import OF_IMPORTS, LetterFilter, LetterTally
from ...domain.measures import DEAD_LETTERS
from ...io.registry import WORKERS
from .guard import bad_input

GIVEN: Final = "given"
"""What the audit log has instead of a text from outside, which may say who: its lines are never deleted."""

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")]
Time = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
ActivityId = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class Where(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """Which letters; what is not given does not matter. Times are ISO 8601 or epoch milliseconds."""

    state: Literal["waiting", "redriven", "all"] = "waiting"
    worker: Name | None = None
    reason: Name | None = None
    activity: ActivityId | None = None
    since: Time | None = None
    until: Time | None = None


def filter_of(where: Where, kinds: Collection[LetterTally]) -> LetterFilter:
    """The filter a request means.

    Args:
        where: as asked for.
        kinds: of letters there are: their workers are known, besides those of this version.

    Raises:
        FunctionError: 400, a value is none of what it should be.
    """
    if where.worker is not None and where.worker not in {*WORKERS, *OF_IMPORTS, *(kind.worker for kind in kinds)}:
        raise bad_input("worker: there is none of that name")
    if where.activity is not None and not where.activity.isprintable():
        raise bad_input("activity: no control characters")
    return LetterFilter(
        worker=where.worker,
        reason=where.reason,
        since_ms=_time(where.since, "from"),
        until_ms=_time(where.until, "to"),
        waiting_only=where.state == "waiting",
        redriven_only=where.state == "redriven",
        activity_id=where.activity,
    )


def options_of(where: LetterFilter) -> list[str]:
    """A filter as options of ``dead-letters redrive``, each one argument."""
    named = {**_plain(where), "reason": where.reason, "activity": where.activity_id}
    return [f"--{name}={value}" for name, value in named.items() if value is not None]


def details_of(where: LetterFilter, kinds: Collection[LetterTally]) -> dict[str, str]:
    """A filter for the audit log: times, and names from closed lists or of letters there are.

    Args:
        where: the filter; its worker is a known one.
        kinds: as in ``filter_of``.
    """
    known = {*DEAD_LETTERS, *(kind.reason for kind in kinds)}
    reason = where.reason if where.reason is None or where.reason in known else GIVEN
    named = {**_plain(where), "reason": reason, "activity": None if where.activity_id is None else GIVEN}
    return {name: value for name, value in named.items() if value is not None}


def _plain(where: LetterFilter) -> dict[str, str | None]:
    return {
        "worker": where.worker,
        "since": None if where.since_ms is None else format_time_ms(where.since_ms),
        "until": None if where.until_ms is None else format_time_ms(where.until_ms),
    }


def _time(text: str | None, name: str) -> int | None:
    try:
        return None if text is None else parse_time_ms(text)
    except MalformedRecordError:
        raise bad_input(f"{name}: write a time as 2026-11-27T10:00:00Z") from None
