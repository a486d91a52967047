"""The console's dead letters: how many of what, a page of them, one of them, its payload, and sending them again."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from starlette.routing import Route

from ...domain.activity import format_time_ms
from ...domain.audit import Outcome
from ...domain.dead_letters import OF_IMPORTS, LetterFilter, RedriveAttempt
from ...io.ports import DeadLetterArchive, LetterHead, StoredDeadLetter
from .commands import Commands
from .guard import Asked, Guard, Nothing, bad_input, conflict, not_found
from .jobs import JobKind
from .letter_numbers import Summary, bound
from .letter_search import Where, details_of, filter_of, options_of
from .recording import Recorder
from .threads import Threads

MOST_IDS: Final = 100
"""Letters one request may name."""

MOST_REVEALED: Final = 1_000_000
"""Bytes of a payload that are shown; the command line has the rest."""

_COUNT_SECONDS: Final = 2.0
_MOST_COUNTED: Final = 10_000_000

LetterId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8,64}\Z")]
Cursor = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,250}\Z")]


class PageOf(Where, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """A page of them."""

    after: Cursor | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


class One(msgspec.Struct, forbid_unknown_fields=True):
    """A letter."""

    letter: LetterId


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """Letters to send again: named, or all that match, whose number the operator saw.

    A filter's ``to`` is the moment the number is of; without one it is the moment of the request.
    """

    ids: Annotated[list[LetterId], msgspec.Meta(min_length=1, max_length=MOST_IDS)] | None = None
    filter: Where | None = None
    expected: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None


class DeadLetters:
    """The routes of dead letters.

    Args:
        letters: where they are.
        summary: counts them.
        threads: where they are read.
        recorder: of looking into one.
        commands: sends them again.
    """

    def __init__(
        self, letters: DeadLetterArchive, summary: Summary, threads: Threads, recorder: Recorder, commands: Commands
    ) -> None:
        self._letters = letters
        self._summary = summary
        self._threads = threads
        self._recorder = recorder
        self._commands = commands

    def routes(self, guard: Guard) -> list[Route]:
        """The routes; those with a fixed name come first."""
        return [
            guard.read("/dead-letters/summary", self._numbers, Nothing),
            guard.read("/dead-letters/count", self._count, Where),
            guard.act("/dead-letters/redrive", self._redrive, Chosen),
            guard.read("/dead-letters", self._page, PageOf),
            guard.read("/dead-letters/{letter}", self._one, One),
            guard.act("/dead-letters/{letter}/reveal", self._reveal, One),
        ]

    async def _numbers(self, asked: Asked, nothing: Nothing) -> dict[str, Any]:
        del asked, nothing
        counted = await self._summary.counted()
        if counted is None:
            return {"asOf": None, "total": None, "groups": []}
        kinds = counted.kinds
        groups = [{"worker": kind.worker, "reason": kind.reason, "count": kind.number} for kind in kinds]
        return {"asOf": counted.until_ms, "total": sum(kind.number for kind in kinds), "groups": groups}

    async def _count(self, asked: Asked, where: Where) -> dict[str, Any]:
        """How many match now, and until when they were written: together they are what a redrive takes."""
        del asked
        bounded = self._bounded(where)
        number = await self._threads.ask(
            "dead_letters", self._letters.count_up_to, _MOST_COUNTED, self._filter_of(bounded), seconds=_COUNT_SECONDS
        )
        return {"count": number, "to": bounded.until}

    async def _page(self, asked: Asked, page: PageOf) -> dict[str, Any]:
        del asked
        where = self._filter_of(page)
        try:
            found = await self._threads.ask(
                "dead_letters", self._letters.page, where, after=page.after, limit=page.limit
            )
        except ValueError:
            raise bad_input("after: no page of letters ends there") from None
        return {"letters": [_head(letter) for letter in found.letters], "next": found.after}

    async def _one(self, asked: Asked, one: One) -> dict[str, Any]:
        del asked
        stored = await self._stored(one)
        history = await self._threads.ask("dead_letters", self._letters.history, one.letter)
        return {
            **_head(_head_of(stored)),
            "stack": stored.letter.stack,
            "history": [_attempt(attempt) for attempt in history],
            "bytes": len(stored.letter.payload),
        }

    async def _reveal(self, asked: Asked, one: One) -> dict[str, Any]:
        stored = await self._stored(one)
        payload = stored.letter.payload
        begun = await self._recorder.begin(asked, "deadLetters.reveal", one.letter, {"bytes": len(payload)})
        shown = payload[:MOST_REVEALED]
        await self._recorder.end(begun, Outcome.DONE)
        try:
            text, encoding = shown.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = msgspec.to_builtins(shown), "base64"
        return {"payload": text, "encoding": encoding, "bytes": len(payload), "truncated": len(shown) < len(payload)}

    async def _redrive(self, asked: Asked, chosen: Chosen) -> dict[str, Any]:
        if (chosen.ids is None) == (chosen.filter is None) or (chosen.filter is None) != (chosen.expected is None):
            raise bad_input('name {"ids": […]}, or {"filter": {…}, "expected": n}')
        if chosen.ids is not None:
            ids = list(dict.fromkeys(chosen.ids))
            await self._stored(One(ids[0]))  # the audit log has an id of a letter, and not any digits
            details: dict[str, str | int] = {"letters": len(ids), "first": ids[0]}
            arguments = ids
        else:
            arguments, details = await self._matching(chosen.filter or Where(), chosen.expected or 0)
        job = await self._commands.start(
            asked,
            JobKind.REDRIVE,
            "deadLetters.redrive",
            None,
            details,
            ["dead-letters", "redrive", *arguments, "--json"],
        )
        return {"job": job}

    async def _matching(self, filter_: Where, expected: int) -> tuple[list[str], dict[str, str | int]]:
        """The command's arguments for what matches, and the audit log's details, if the operator saw as many."""
        if filter_.state != "waiting":
            raise bad_input("filter: only letters that wait can be sent again (state waiting)")
        where = self._filter_of(self._bounded(filter_))
        if where.worker in OF_IMPORTS:
            raise bad_input("letters of imports come again with their file: correct it and import it again")
        found = await self._threads.ask(
            "dead_letters", self._letters.count_up_to, expected + 1, where, seconds=_COUNT_SECONDS
        )
        # Where counting takes too long, as in DynamoDB, the command itself compares before it sends anything.
        if found not in (None, expected):
            told = f"more than {expected:,}" if found > expected else f"{found:,}"
            raise conflict(f"{told} letters match now, not {expected:,}: look at them again", "CHANGED")
        details: dict[str, str | int] = {"expected": expected, **details_of(where, self._summary.kinds)}
        return [*options_of(where), f"--expected={expected}"], details

    async def _stored(self, one: One) -> StoredDeadLetter:
        stored = await self._threads.ask("dead_letters", self._letters.get, one.letter)
        if stored is None or stored.letter.dead_letter_id != one.letter:
            raise not_found("dead letter")
        return stored

    def _filter_of(self, where: Where) -> LetterFilter:
        return filter_of(where, self._summary.kinds)

    def _bounded(self, where: Where) -> Where:
        """With an end, however many letters come meanwhile: one that is given, else now."""
        end = bound()
        given = self._filter_of(where).until_ms
        return msgspec.structs.replace(where, until=format_time_ms(end if given is None else min(given, end)))


def _attempt(attempt: RedriveAttempt) -> dict[str, str]:
    return {
        "at": format_time_ms(attempt.at),
        "outcome": attempt.outcome,
        "error": attempt.error,
        "codeVersion": attempt.code_version,
    }


def _head_of(stored: StoredDeadLetter) -> LetterHead:
    letter = stored.letter
    return LetterHead(
        letter.dead_letter_id,
        letter.worker,
        letter.reason,
        letter.error,
        letter.attempts,
        stored.written_at_ms,
        stored.redriven_at_ms,
        letter.source,
        letter.position,
        letter.code_version,
    )


def _head(letter: LetterHead) -> Mapping[str, Any]:
    redriven = letter.redriven_at_ms
    return {
        "id": letter.dead_letter_id,
        "worker": letter.worker,
        "reason": letter.reason,
        "error": letter.error,
        "attempts": letter.attempts,
        "writtenAt": format_time_ms(letter.written_at_ms),
        "redrivenAt": None if redriven is None else format_time_ms(redriven),
        "source": letter.source,
        "position": letter.position,
        "codeVersion": letter.code_version,
    }
