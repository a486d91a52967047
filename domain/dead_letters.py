"""Looking for dead letters, and what became of those that were sent again."""

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from .imports import ImportKind
from .records import CODE_VERSION

IMPORT_EVENTS: Final = "startImport"
"""The worker named in dead letters of S3 events that started no import."""

OF_IMPORTS: Final = frozenset({*(kind.worker for kind in ImportKind), IMPORT_EVENTS})
"""Workers whose letters are rows of a file, or the news of one: they come again with the file, and not one by one."""

_EXAMPLES: Final = 3


class RedriveAttempt(msgspec.Struct, frozen=True, rename="camel"):
    """One time a dead letter was to be sent again.

    Attributes:
        dead_letter_id: which.
        at: when, epoch milliseconds.
        outcome: ``queued``, ``failed``, or ``rejected``: it can be read now, but is not scorable, and so is done with.
        error: why it failed, one line; "" for the others.
        request_id: of the run.
        code_version: of the program that tried.
    """

    dead_letter_id: str
    at: int
    outcome: Literal["queued", "rejected", "failed"]
    error: str
    request_id: str
    code_version: str = CODE_VERSION


class LetterFilter(msgspec.Struct, frozen=True):
    """Which dead letters are meant; what is None does not matter.

    Attributes:
        worker: that gave up.
        reason: its short code.
        error: a text that the error contains, letter for letter.
        since_ms: first written at this time or later, epoch milliseconds.
        until_ms: first written before this time.
        code_version: of the program that wrote it last.
        waiting_only: not those that were sent again.
        redriven_only: those that were sent again alone; with ``waiting_only`` there is none.
        activity_id: of the activity that could not be processed, where that was known.
    """

    worker: str | None = None
    reason: str | None = None
    error: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    code_version: str | None = None
    waiting_only: bool = True
    redriven_only: bool = False
    activity_id: str | None = None


WAITING: Final = LetterFilter()
"""Every letter that waits."""


class LetterTally(msgspec.Struct, frozen=True, rename="camel"):
    """How many letters of one worker have one reason, and the ids of some."""

    worker: str
    reason: str
    number: int
    examples: tuple[str, ...] = ()


def tally_letters(letters: Iterable[tuple[str, str, str]]) -> list[LetterTally]:
    """Counts (worker, reason, id), most first; keeps the first ids of each kind."""
    numbers: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[str]] = {}
    for worker, reason, letter_id in letters:
        kind = worker, reason
        numbers[kind] += 1
        if numbers[kind] <= _EXAMPLES:
            examples.setdefault(kind, []).append(letter_id)
    ordered = sorted(numbers.items(), key=lambda one: (-one[1], one[0]))
    return [LetterTally(*kind, number, tuple(examples[kind])) for kind, number in ordered]
