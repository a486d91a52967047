"""The worker ``getArmScore`` as a Lambda: ``fan_identity.serving.arm_handler.handler``.

Imports little, so that a new Lambda answers soon: neither pydantic, boto3 nor GraphQL; a table's client only once the
cache is away.

Source: AppSync developer guide, "Direct Lambda resolver reference" and "Batching invocations"; the reference's workers.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from contextvars import copy_context
from datetime import timedelta
from functools import cache
from typing import Any, Final, NamedTuple

from ..domain.access import READ_ANY_SCOPE, CallerKind, Identity
from ..io import emf
from ..io.durations import duration
from ..io.errors import UnavailableError, UsageError
from ..io.logs import configure_logging
from .appsync_identity import identity_of_event
from .arm import ArmLookup, shown
from .context import FunctionError, unavailable
from .data_sources import ArmScore, AsyncTable
from .invocations import invocation_id
from .shared import require_reader_of
from .tokens.rules import DEFAULT_USER_CLAIM, split_list
from .traces import resolver_trace

WORKER: Final = "getArmScore"
"""The worker's name in the reference, which ``APP_NAME`` selects."""

MOST_EVENTS: Final = 2_000
"""Events of one BatchInvoke; AppSync's own limit."""

_INVOKER: Final = Identity(CallerKind.SERVICE, "lambda-invoke", scopes=frozenset({READ_ANY_SCOPE}))
_TRUE: Final = ("1", "true", "on", "yes", "y", "t")
_FALSE: Final = ("0", "false", "off", "no", "n", "f")
_PREFIX: Final = "FAN_IDENTITY_"
_TABLE_SECONDS: Final = 1.0
_DEADLINE: Final = timedelta(milliseconds=100)

Event = Mapping[str, Any]


class ArmRules(NamedTuple):
    """What the worker needs to know; the names, defaults and meaning are those of ``serving.settings``.

    Attributes:
        store: where cache and table are that have no address of their own.
        cache: the ARM cache.
        table: the fan identity table.
        arm_fallback: whether the table is read while the cache is away.
        arm_deadline: what a lookup waits for the cache at most.
        user_claim: the claim that holds a fan's globalUserId.
        audiences: whose scopes count in a service's token.
        trust_traceparent: whether callers' traces are continued.
    """

    store: str | None
    cache: str | None
    table: str | None
    arm_fallback: bool
    arm_deadline: timedelta
    user_claim: str
    audiences: tuple[str, ...]
    trust_traceparent: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ArmRules":
        """The rules of ``FAN_IDENTITY_…``, the same as by way of ``load_serving_settings``.

        Raises:
            UsageError: a setting does not fit.
        """
        found = {name.upper(): text for name, text in environment.items()}
        fallback = _is_true(found, "ARM_FALLBACK", "true")
        text = found.get(_PREFIX + "ARM_DEADLINE")
        try:
            deadline = _DEADLINE if text is None else duration(text)
        except ValueError as error:
            raise UsageError(f"setting arm_deadline: {error} ({_PREFIX}ARM_DEADLINE)") from None
        if not deadline:
            raise UsageError(f"setting arm_deadline: more than nothing ({_PREFIX}ARM_DEADLINE)")
        return cls(
            found.get(_PREFIX + "STORE"),
            found.get(_PREFIX + "CACHE"),
            found.get(_PREFIX + "TABLE"),
            fallback,
            deadline,
            found.get(_PREFIX + "TOKEN_USER_CLAIM", DEFAULT_USER_CLAIM),
            split_list(found.get(_PREFIX + "TOKEN_AUDIENCE", "")),
            _is_true(found, "TRUST_TRACEPARENT", "false"),
        )


def _is_true(found: Mapping[str, str], name: str, default: str) -> bool:
    text = found.get(_PREFIX + name, default).lower()
    if text not in (*_TRUE, *_FALSE):
        raise UsageError(f"setting {name.lower()}: true or false ({_PREFIX}{name})")
    return text in _TRUE


class _Asked(NamedTuple):
    global_user_id: str
    detail: bool


class Resolver:
    """Answers resolver events.

    Args:
        arm: the lookup.
        user_claim: the claim that holds a fan's globalUserId.
        audiences: whose scopes count in a service's token.
    """

    def __init__(self, arm: ArmLookup, user_claim: str = DEFAULT_USER_CLAIM, audiences: tuple[str, ...] = ()) -> None:
        self._arm = arm
        self._user_claim = user_claim
        self._audiences = audiences

    async def answer(self, event: Event) -> Any:
        """Answers one event.

        Args:
            event: AppSync's context of a direct resolver (it has ``info``) for ``Query.getArmScore`` or
                ``Fan.armScore``, which has age and model version too; or the reference's plain event:
                ``globalUserId`` in ``arguments`` or as it is, and ``detail: true`` for age and model version.
                Who asks is said by ``identity``; a plain event without it comes from whoever may invoke the Lambda,
                and that is a service.

        Returns:
            The field's value, None for an unknown fan; of a plain event ``{data: {armScore}}``.

        Raises:
            FunctionError: 400, 401 or 403.
            UnavailableError: ``arm``.
        """
        asked = self._asked(event)
        score = await self._arm.get(asked.global_user_id)
        if _is_direct(event):
            return _value(event, score)
        return {"data": shown(score, detail=asked.detail)}

    async def answer_batch(self, events: Sequence[Event]) -> list[dict[str, Any]]:
        """Answers the events of one BatchInvoke in their order, by one MGET.

        Returns:
            For each ``{data}``, or ``{data: null, errorMessage, errorType}``: one that fails leaves the others alone.

        Raises:
            UsageError: they are more than AppSync ever sends.
        """
        if len(events) > MOST_EVENTS:
            raise UsageError(f"a batch has at most {MOST_EVENTS:,} events")
        answers: dict[int, dict[str, Any]] = {}
        asked: dict[int, _Asked] = {}
        for number, event in enumerate(events):
            try:
                asked[number] = self._asked(event)
            except FunctionError as error:
                answers[number] = error.in_batch()
        outcomes = await self._arm.outcomes([one.global_user_id for one in asked.values()])
        for number, outcome in zip(asked, outcomes, strict=True):
            answers[number] = (
                unavailable(outcome).in_batch()
                if isinstance(outcome, UnavailableError)
                else {"data": _value(events[number], outcome)}
            )
        return [answers[number] for number in range(len(events))]

    def _asked(self, event: Event) -> _Asked:
        """What an event asks for, after checking that its caller may.

        Raises:
            FunctionError: 400, 401 or 403.
        """
        if _object(event) is None:  # it comes from outside
            raise FunctionError("an event is a JSON object", "400", "BAD_REQUEST")
        arguments = _object(event.get("arguments", event))
        if arguments is None:
            raise FunctionError("arguments is an object", "400", "BAD_REQUEST")
        global_user_id = arguments.get("globalUserId", (_object(event.get("source")) or {}).get("globalUserId"))
        if not isinstance(global_user_id, str):
            raise FunctionError("globalUserId is a text", "400", "BAD_INPUT")
        try:
            global_user_id.encode()
        except UnicodeEncodeError:
            raise FunctionError("globalUserId is not Unicode", "400", "BAD_INPUT") from None
        require_reader_of(self._caller(event), global_user_id)
        return _Asked(global_user_id, arguments.get("detail") is True)

    def _caller(self, event: Event) -> Identity:
        if "identity" not in event and not _is_direct(event):
            return _INVOKER
        identity = _object(event.get("identity"))
        if identity is None and event.get("identity") is not None:
            raise FunctionError("identity is an object or null", "400", "BAD_REQUEST")
        return identity_of_event(identity, user_claim=self._user_claim, audiences=self._audiences)


def handler(event: Event | list[Event], context: Any = None) -> Any:
    """Answers one event, or a list of them (BatchInvoke), with the settings of the environment.

    Raises:
        UsageError: a setting is missing or does not fit.
        FunctionError: the caller may not ask this, or asks nothing. AppSync shows the message.
        UnavailableError: the score could not be looked up.
    """
    request_id = invocation_id(context)
    configure_logging(os.environ.get(_PREFIX + "LOG_LEVEL", "WARNING"), WORKER, request_id)
    with emf.invocation(WORKER, request_id) as counts, ExitStack() as exits:
        runner, resolver, trusts = _opened()
        exits.enter_context(resolver_trace(WORKER, request_id, event, trusts=trusts))
        counts["fields"] = len(event) if isinstance(event, list) else 1
        if not isinstance(event, list):
            return runner.run(resolver.answer(event), context=copy_context())
        answers = runner.run(resolver.answer_batch(event), context=copy_context())
        counts["failed_fields"] = sum("errorType" in answer for answer in answers)
        return answers


@cache
def _opened() -> tuple[asyncio.Runner, Resolver, bool]:
    """One event loop and one connection for as long as Lambda keeps the process, and whether traces are trusted."""
    rules = ArmRules.from_environment(os.environ)
    arm = ArmLookup.of(
        rules.cache,
        rules.store,
        deadline_seconds=rules.arm_deadline.total_seconds(),
        table=_table(rules) if rules.arm_fallback else None,
    )
    return asyncio.Runner(), Resolver(arm, rules.user_claim, rules.audiences), rules.trust_traceparent


def _table(rules: ArmRules) -> Callable[[], AsyncTable] | None:
    """Opens the table when it is first asked; None where no address is set."""
    address = rules.table or rules.store
    if address is None:
        return None

    @cache
    def opened() -> AsyncTable:
        from .fan_table import open_fan_table  # noqa: PLC0415 - its clients are slow to import

        return open_fan_table(address, "table" if rules.table else "store", _TABLE_SECONDS).table

    return opened


def _object(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownVariableType]


def _is_direct(event: Event) -> bool:
    return "info" in event


def _value(event: Event, score: ArmScore | None) -> Any:
    """The value of the field that is resolved: ``Query.getArmScore: Int``, ``Fan.armScore: ArmScore``."""
    info = _object(event["info"]) or {}
    if score is None or (info.get("parentTypeName"), info.get("fieldName")) != ("Fan", "armScore"):
        return None if score is None else score.arm_score
    detail = shown(score, detail=True)
    return {"score": detail.pop("armScore"), **detail}
