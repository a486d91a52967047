"""Erasing a fan from every store, and writing down what every store has of a fan.

Both go through the same places (``io.fan_places``, ``batch.fan_reports``), so what is exported is what is erased.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..domain.fan_traces import Fan
from ..io.fan_places import Place
from ..io.fan_stores import QueueOfServer
from ..io.sqlite.store import SqliteStore

_PASSES: Final = 3


@dataclass(frozen=True)
class Erasure:
    """What became of a fan's traces.

    Attributes:
        found: by place, what was there before; of a dry run, what would be erased.
        erased: by place, what is gone; more than found where something came meanwhile.
        left: by place, what is still there at the end: reports that were not to be deleted, or what a worker writes on.
        depths: by queue of a server, how many messages wait in it, each perhaps the fan's.
    """

    found: Mapping[str, int]
    erased: Mapping[str, int] = field(default_factory=dict[str, int])
    left: Mapping[str, int] = field(default_factory=dict[str, int])
    depths: Mapping[str, int] = field(default_factory=dict[str, int])


def find(places: Sequence[Place]) -> dict[str, list[Mapping[str, Any]]]:
    """By place, everything it has of the fan.

    Raises:
        BackendUnavailableError: one is out of reach.
    """
    return {place.name: place.find() for place in places}


def erase(places: Sequence[Place], files: Sequence[SqliteStore], *, dry_run: bool = False) -> Erasure:
    """Erases a fan. Every place is asked first: nothing is erased while one is out of reach.

    Killed or failed in between, it is run again: what is gone stays gone, and the rest is found as before.

    Args:
        places: where to erase, those first from which others are filled.
        files: SQLite stores; they are written anew at the end, since SQLite leaves deleted bytes in the file.
        dry_run: only say what would be erased.

    Raises:
        BackendUnavailableError: a place is out of reach, or a store is in use so that it cannot be written anew.
    """
    found = _counts(places)
    depths = {place.name: place.depth() for place in places if isinstance(place, QueueOfServer)}
    if dry_run:
        return Erasure(found, depths=depths)
    erased = dict.fromkeys(found, 0)
    left = found
    # Again where a worker has scored meanwhile what it had received before.
    for _ in range(_PASSES):
        gone = 0
        for place in places:
            number = place.erase()
            erased[place.name] += number
            gone += number
        left = {name: number for name, number in _counts(places).items() if number}
        if not left or not gone:
            break
    for file in files:
        file.compact()
    return Erasure(found, erased, left, depths)


def _counts(places: Sequence[Place]) -> dict[str, int]:
    return {place.name: len(place.find()) for place in places}


def exported(fan: Fan, places: Sequence[Place], moment: str) -> dict[str, Any]:
    """Everything the places have of a fan, as one JSON object.

    Args:
        fan: who.
        places: where to look.
        moment: now, in ISO 8601.

    Raises:
        BackendUnavailableError: a place is out of reach; half an export is none.
    """
    return {
        "globalUserId": fan.global_user_id,
        "memberId": fan.member_id,
        "exportedAt": moment,
        "places": find(places),
        "notSearched": sorted(place.name for place in places if isinstance(place, QueueOfServer)),
    }
