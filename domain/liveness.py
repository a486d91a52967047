"""Outages of the parts around the workers: when one begins, when it is over, and what is told of it.

A part is down where it gave no good answer within a probe's deadline. That is told at once, since a probe asks again
until the deadline; that it answers again is told once it did so in several rounds in a row, twice as many each time the
part goes down again soon after: a part that flaps is told of once, not at every beat.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from .activity import format_time_ms

TRIGGER: Final = "trigger"
RESOLVE: Final = "resolve"
"""What is told of an outage, by the names PagerDuty's Events API v2 and those after it have: it began, it ended."""

ROUNDS_TO_CLEAR: Final = 2
"""Rounds in a row a part answers before its outage is over."""

MOST_ROUNDS_TO_CLEAR: Final = 16
"""What a part needs at most that goes down again and again."""

RELAPSE_MS: Final = 1_800_000
"""A part that goes down within half an hour of its recovery is a relapse."""

CLAIM_MS: Final = 30_000
"""Who took a notice to send it has this long; then another may take it."""

OUTAGE_PK: Final = "LIVENESS"
"""The partition of the operations table that holds what was told, by part."""

_MINOR: Final = ("staging_", "flags", "operations", "events", "outbox")
_UPSTREAMS: Final = frozenset(
    {"identity", "account_info", "campaigns", "phone_scores", "eligibility", "event_details", "lnaa", "identity_checks"}
)


class Probed(msgspec.Struct, frozen=True):
    """What came of asking a part once.

    Attributes:
        part: its name, that of the first setting that names it.
        address: without options and credentials, for people.
        up: whether there was a good answer in time.
        seconds: what that took.
        problem: one line for people where there was none; no personal data, no secret.
        settings: all settings that name it.
    """

    part: str
    address: str
    up: bool
    seconds: float
    problem: str = ""
    settings: tuple[str, ...] = ()


class Outage(msgspec.Struct, frozen=True, rename="camel"):
    """What is known of a part's newest outage; times are epoch milliseconds.

    Attributes:
        part: whose.
        address: of the part, for people.
        settings: those that name it.
        revision: one more with each write: of two writers with the same one, the table refuses the later.
        down: whether it goes on.
        began_at: when it was noticed.
        ended_at: when it was found over; 0 while it goes on.
        problem: what was wrong at first.
        rounds_up: rounds in a row the part answered while the outage is not over.
        relapses: outages before this one, each soon after the other.
        owed: what is still to be told, in order: ``TRIGGER``, ``RESOLVE``.
        claim: the process that is telling the first of it; "" for nobody.
        claimed_at: since when.
    """

    part: str
    address: str = ""
    settings: tuple[str, ...] = ()
    revision: int = 0
    down: bool = False
    began_at: int = 0
    ended_at: int = 0
    problem: str = ""
    rounds_up: int = 0
    relapses: int = 0
    owed: tuple[str, ...] = ()
    claim: str = ""
    claimed_at: int = 0


def rounds_to_clear(relapses: int) -> int:
    """Rounds in a row a part has to answer before its outage is over.

    >>> [rounds_to_clear(relapses) for relapses in (0, 1, 2, 3, 50)]
    [2, 4, 8, 16, 16]
    """
    return min(ROUNDS_TO_CLEAR << min(relapses, MOST_ROUNDS_TO_CLEAR), MOST_ROUNDS_TO_CLEAR)


def after_probe(known: Outage | None, probed: Probed, now_ms: int) -> Outage | None:
    """What is known of a part after a probe; None where that is nothing new.

    An outage that ends before its beginning was told is still told of, beginning and end. One that begins again before
    its end was told just goes on.

    Args:
        known: what was known, or None.
        probed: what came of the probe.
        now_ms: epoch milliseconds.
    """
    if not probed.up:
        if known is not None and known.down:
            return _written(known, rounds_up=0) if known.rounds_up else None
        return _begun(known, probed, now_ms)
    if known is None or not known.down:
        return None
    rounds_up = known.rounds_up + 1
    if rounds_up < rounds_to_clear(known.relapses):
        return _written(known, rounds_up=rounds_up)
    return _written(known, rounds_up=rounds_up, down=False, ended_at=now_ms, owed=(*known.owed, RESOLVE))


def _begun(known: Outage | None, probed: Probed, now_ms: int) -> Outage:
    fresh = Outage(
        probed.part,
        probed.address,
        probed.settings,
        revision=1 if known is None else known.revision + 1,
        down=True,
        began_at=now_ms,
        problem=probed.problem,
        owed=(TRIGGER,),
    )
    if known is None or not known.ended_at:
        return fresh
    relapses = known.relapses + 1 if now_ms - known.ended_at < RELAPSE_MS else 0
    if known.owed and not known.claim:
        # Its end was not told yet: for whoever listens, it goes on.
        return msgspec.structs.replace(fresh, relapses=relapses, began_at=known.began_at, owed=known.owed[:-1])
    return msgspec.structs.replace(
        fresh, relapses=relapses, owed=(*known.owed, TRIGGER), claim=known.claim, claimed_at=known.claimed_at
    )


def is_free(outage: Outage, now_ms: int, *, claimer_is_gone: bool) -> bool:
    """Whether something is to be told that nobody is telling.

    Args:
        outage: of which.
        now_ms: epoch milliseconds.
        claimer_is_gone: whether the process that claimed it is known to have ended.
    """
    taken = bool(outage.claim) and not claimer_is_gone and now_ms - outage.claimed_at < CLAIM_MS
    return bool(outage.owed) and not taken


def claimed(outage: Outage, process: str, now_ms: int) -> Outage:
    """The outage with its first notice taken to be sent."""
    return _written(outage, claim=process or "?", claimed_at=now_ms)


def told(outage: Outage) -> Outage:
    """The outage after its first notice was sent."""
    return _written(outage, owed=outage.owed[1:], claim="", claimed_at=0)


def given_back(outage: Outage) -> Outage:
    """The outage after its first notice could not be sent: anybody may try."""
    return _written(outage, claim="", claimed_at=0)


def _written(outage: Outage, **changes: Any) -> Outage:
    return msgspec.structs.replace(outage, revision=outage.revision + 1, **changes)


def newest(*known: Mapping[str, Outage]) -> dict[str, Outage]:
    """By part what was written last, of several places."""
    merged: dict[str, Outage] = {}
    for place in known:
        for part, outage in place.items():
            if part not in merged or outage.revision > merged[part].revision:
                merged[part] = outage
    return merged


def severity_of(part: str) -> str:
    """``critical`` where scores stop or fans get none, ``warning`` where the answer is only poorer."""
    return "warning" if part in _UPSTREAMS or part.startswith(_MINOR) else "critical"


def notice_of(outage: Outage, deployment: str) -> dict[str, Any]:
    """What is told of an outage next, as JSON.

    Fields are described in ``docs/health.md``. ``dedup_key`` is the same for all that is ever told of the part, whoever
    tells it: who listens sees a repetition, and which alert a recovery ends.

    Args:
        outage: it owes a notice.
        deployment: tells several installations apart.
    """
    action = outage.owed[0]
    began = format_time_ms(outage.began_at)
    over = action == RESOLVE
    lasted = max(0, outage.ended_at - outage.began_at) // 1_000
    what = f"{outage.part} ({outage.address})" if outage.address else outage.part
    summary = (
        f"fan-identity: {what} answers again; it was down for {lasted} s, since {began}"
        if over
        else f"fan-identity: {what} is DOWN since {began}: {outage.problem}"
    )
    severity = severity_of(outage.part)
    return {
        "text": summary,
        "event_action": action,
        "dedup_key": f"fan-identity/{deployment}/{outage.part}",
        "severity": severity,
        "part": outage.part,
        "address": outage.address,
        "settings": list(outage.settings),
        "problem": outage.problem,
        "began_at": began,
        "ended_at": format_time_ms(outage.ended_at) if over else None,
        "lasted_seconds": lasted if over else None,
        "payload": {
            "summary": summary,
            "source": "fan-identity checkLiveness",
            "severity": severity,
            "component": outage.part,
            "timestamp": format_time_ms(outage.ended_at) if over else began,
        },
    }


def summary_of(probed: Sequence[Probed]) -> dict[str, Any]:
    """All that a round found, as JSON: how many parts are up and down, and each of them."""
    return {
        "up": sum(one.up for one in probed),
        "down": sum(not one.up for one in probed),
        "parts": [
            {
                "part": one.part,
                "address": one.address,
                "up": one.up,
                "ms": round(one.seconds * 1_000, 1),
                **({} if one.up else {"problem": one.problem}),
            }
            for one in probed
        ],
    }
