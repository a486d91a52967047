"""The console's dead letters: how many of what, a page of them, one of them, its payload, and sending them again."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from starlette.routing import Route

from ...domain.activity import MalformedRecordError, format_time_ms, parse_time_ms
from ...domain.audit import Outcome
from ...domain.dead_letters import OF_IMPORTS, LetterFilter, LetterTally, RedriveAttempt
from ...io.clock import now_ms
from ...io.errors import FanIdentityError
from ...io.ports import DeadLetterArchive, LetterHead, StoredDeadLetter
from ...io.registry import WORKERS
from .commands import Commands
from .guard import Asked, Guard, Nothing, bad_input, conflict, not_found
from .jobs import JobKind
from .recording import Recorder
from .threads import Threads

MOST_IDS: Final = 100
"""Letters one request may name."""

MOST_REVEALED: Final = 1_000_000
"""Bytes of a payload that are shown; the command line has the rest."""

_COUNT_SECONDS: Final = 2.0
_log: Final = logging.getLogger("fan_identity.console")

LetterId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8,64}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")]
Time = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
ActivityId = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
Cursor = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,250}\Z")]


class Where(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """Which letters; what is not given does not matter. Times are ISO 8601 or epoch milliseconds."""

    state: Literal["waiting", "redriven", "all"] = "waiting"
    worker: Name | None = None
    reason: Name | None = None
    activity: ActivityId | None = None
    since: Time | None = None
    until: Time | None = None


class PageOf(Where, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """A page of them."""

    after: Cursor | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


class One(msgspec.Struct, forbid_unknown_fields=True):
    """A letter."""

    letter: LetterId


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """Letters to send again: named, or all that match, whose number the operator saw."""

    ids: Annotated[list[LetterId], msgspec.Meta(min_length=1, max_length=MOST_IDS)] | None = None
    filter: Where | None = None
    expected: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None


class Summary:
    """How many letters wait, by worker and reason: counted in the background while somebody asks.

    Args:
        letters: where they are.
        threads: where they are counted.
        fresh_seconds: between two counts, at least; it is never more than a tenth of the time that is spent counting.
    """

    def __init__(self, letters: DeadLetterArchive, threads: Threads, fresh_seconds: float) -> None:
        self._letters = letters
        self._threads = threads
        self._fresh_seconds = fresh_seconds
        self._asked = asyncio.Event()
        self._counted: tuple[int, list[LetterTally]] | None = None
        self._first = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, *, count: bool) -> None:
        """Begins, on the running event loop.

        Args:
            count: whether to count at once, so that who asks first need not wait.
        """
        if count:
            self._asked.set()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ends."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def kinds(self) -> list[LetterTally]:
        """The numbers counted last; none before the first time."""
        return [] if self._counted is None else self._counted[1]

    async def counted(self) -> tuple[int, list[LetterTally]] | None:
        """When it was counted last (epoch milliseconds), and the numbers.

        None before the first time, which is waited for shortly.
        """
        self._asked.set()
        if self._counted is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COUNT_SECONDS):
                    await self._first.wait()
        return self._counted

    async def _follow(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            began = time.monotonic()
            try:
                self._counted = now_ms(), await self._threads.behind(self._letters.numbers)
                self._first.set()
            except FanIdentityError as error:
                _log.warning("dead letters cannot be counted: %s", error)
            except Exception:
                _log.exception("dead letters cannot be counted: this is a defect of fan-identity")
            await asyncio.sleep(max(self._fresh_seconds, 9 * (time.monotonic() - began)))


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
        at, kinds = counted
        groups = [{"worker": kind.worker, "reason": kind.reason, "count": kind.number} for kind in kinds]
        return {"asOf": at, "total": sum(kind.number for kind in kinds), "groups": groups}

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
        where = self._filter_of(filter_)
        if where.worker in OF_IMPORTS:
            raise bad_input("letters of imports come again with their file: correct it and import it again")
        # Where counting takes too long, as in DynamoDB, the command itself compares before it sends anything.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_COUNT_SECONDS):
                found = await self._threads.ask("dead_letters", self._letters.count_up_to, expected + 1, where)
                if found != expected:
                    told = f"more than {expected:,}" if found > expected else f"{found:,}"
                    raise conflict(f"{told} letters match now, not {expected:,}: look at them again", "CHANGED")
        given = {
            "worker": where.worker,
            "reason": where.reason,
            "since": None if where.since_ms is None else format_time_ms(where.since_ms),
            "until": None if where.until_ms is None else format_time_ms(where.until_ms),
        }
        named = {name: value for name, value in given.items() if value is not None}
        details: dict[str, str | int] = {"expected": expected, **named}
        arguments = [f"--{name}={value}" for name, value in named.items()]
        if where.activity_id is not None:
            arguments.append(f"--activity={where.activity_id}")
            details["activity"] = "given"  # it comes from outside, and may say who
        return [*arguments, f"--expected={expected}"], details

    async def _stored(self, one: One) -> StoredDeadLetter:
        stored = await self._threads.ask("dead_letters", self._letters.get, one.letter)
        if stored is None or stored.letter.dead_letter_id != one.letter:
            raise not_found("dead letter")
        return stored

    def _filter_of(self, where: Where) -> LetterFilter:
        known = {*WORKERS, *OF_IMPORTS, *(kind.worker for kind in self._summary.kinds)}
        if where.worker is not None and where.worker not in known:
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


def _time(text: str | None, name: str) -> int | None:
    try:
        return None if text is None else parse_time_ms(text)
    except MalformedRecordError:
        raise bad_input(f"{name}: write a time as 2026-11-27T10:00:00Z") from None


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
