"""AppSync's direct Lambda resolvers: ``fan_identity.serving.appsync.handler`` answers any field of the schema.

The same resolvers as the standalone server's, one event or a batch of them (BatchInvoke) at a time.

Source: AppSync developer guide, "Direct Lambda resolver reference" and "Batching invocations".
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

from ..io import emf
from ..io.errors import UsageError
from ..io.logs import configure_logging
from ..io.telemetry.tracing import child_span
from .appsync_identity import identity_of_event
from .context import FunctionError, Request
from .data_sources import DataSources
from .invocations import invocation_id
from .problems import seen_error
from .resolvers import PARENT_ARGS, RESOLVERS
from .settings import ServingSettings, load_serving_settings
from .shared import require_reader_of
from .sources import open_sources
from .tokens.rules import split_list
from .traces import resolver_trace

WORKER: Final = "resolveField"
"""The name that ``APP_NAME`` selects."""

TEMPLATE: Final = "lambdaResponse"
"""What ``deploy/appsync/lambda-response.js`` puts into an event, to be answered ``{data, error, degraded}``."""


class _Info(msgspec.Struct, rename="camel"):
    parent_type_name: str
    field_name: str


class _Headers(msgspec.Struct):
    headers: dict[str, Any] | None = None


class ResolverEvent(msgspec.Struct):
    """What is read of a resolver's context; AppSync sends more.

    Attributes:
        info: names the field.
        arguments: checked by AppSync against the schema.
        identity: the caller, see ``appsync_identity``.
        source: the parent's value.
        request: the headers.
        template: ``TEMPLATE`` where the event came through ``lambda-response.js``.
    """

    info: _Info
    arguments: dict[str, Any] = {}
    identity: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    request: _Headers | None = None
    template: str | None = None

    def correlation_id(self) -> str | None:
        """The id the request brought, or AppSync gave it."""
        headers = (self.request.headers if self.request else None) or {}
        found = headers.get("x-correlation-id") or headers.get("x-amzn-requestid")
        return found if isinstance(found, str) else None


def resolver_event(event: Any) -> ResolverEvent:
    """Reads an event.

    Raises:
        UsageError: it is none of a resolver.
    """
    try:
        return msgspec.convert(event, ResolverEvent)
    except msgspec.ValidationError as error:
        raise UsageError(f"not the event of an AppSync resolver: {error}") from None


@dataclass(frozen=True)
class Api:
    """Answers resolver events.

    Attributes:
        sources: the data sources.
        settings: claims' names, boosts.
    """

    sources: DataSources
    settings: ServingSettings

    async def answer(self, event: ResolverEvent, name: str) -> Any:
        """The field's value, as AppSync takes it from a direct Lambda resolver.

        Args:
            event: what is asked.
            name: of the invocation, where the request brings no correlation id.

        Raises:
            FunctionError: as over HTTP.
        """
        value, _ = await self._outcome(event, name)
        return value

    async def answer_batch(self, events: Sequence[ResolverEvent], name: str) -> list[dict[str, Any]]:
        """An answer for each event of a batch, in their order; one that fails leaves the others alone.

        Returns:
            ``{data}`` or ``{data: null, errorMessage, errorType}``.
        """

        async def one(event: ResolverEvent) -> dict[str, Any]:
            try:
                return {"data": await self.answer(event, name)}
            except FunctionError as error:
                return error.in_batch()

        # Side by side, so that lookups of one turn of the event loop share a round trip to the cache.
        return list(await asyncio.gather(*map(one, events)))

    async def answer_template(self, event: ResolverEvent, name: str) -> dict[str, Any]:
        """What ``lambda-response.js`` takes apart: ``{data, error, degraded}``."""
        try:
            value, degraded = await self._outcome(event, name)
        except FunctionError as error:
            return {"data": None, "error": error.shown(), "degraded": []}
        return {"data": value, "error": None, "degraded": sorted(degraded)}

    async def _outcome(self, event: ResolverEvent, name: str) -> tuple[Any, set[str]]:
        settings = self.settings
        identity = identity_of_event(
            event.identity,
            user_claim=settings.token_user_claim,
            member_claim=settings.token_member_claim,
            audiences=split_list(settings.token_audience or ""),
        )
        request = Request(self.sources, identity, event.correlation_id() or name, settings.boosts)
        parent, field = event.info.parent_type_name, event.info.field_name
        source = event.source or {}
        args = {**event.arguments, **{key: source[key] for key in PARENT_ARGS.get(parent, ()) if key in source}}
        try:
            if (parent, field) == ("Query", "api"):
                return {}, set()
            if (parent, field) == ("Query", "fan"):
                require_reader_of(identity, args["globalUserId"])
                return {"globalUserId": args["globalUserId"]}, set()
            resolver = RESOLVERS.get(f"{parent}.{field}")
            if resolver is None:
                raise FunctionError("no such field is resolved here", "400", "UNKNOWN_FIELD")
            with child_span(f"{parent}.{field}"):
                return await resolver.answer(args, request), request.degraded
        except Exception as error:
            raise seen_error(error, request.correlation_id) from None


@cache
def _opened() -> tuple[asyncio.Runner, Api]:
    """One event loop and one set of connections for as long as Lambda keeps the process."""
    settings = load_serving_settings()
    runner = asyncio.Runner()

    async def opened() -> DataSources:
        return open_sources(settings, in_lambda=True)

    return runner, Api(runner.run(opened()), settings)


def handler(event: Mapping[str, Any] | list[Mapping[str, Any]], context: Any = None) -> Any:
    """Answers one resolver event, or a batch of them.

    Raises:
        UsageError: a setting does not fit, or it is no resolver's event.
        FunctionError: the field failed: AppSync shows its message. Through ``lambda-response.js`` and in batches
            errors keep type and code instead.
    """
    name = invocation_id(context)
    runner, api = _opened()
    configure_logging(api.settings.log_level, WORKER, name)
    with (
        emf.invocation(WORKER, name) as counts,
        resolver_trace(WORKER, name, event, trusts=api.settings.trust_traceparent),
    ):
        counts["fields"] = len(event) if isinstance(event, list) else 1
        if isinstance(event, list):
            events = [resolver_event(one) for one in event]
            answers = runner.run(api.answer_batch(events, name), context=copy_context())
            counts["failed_fields"] = sum("errorType" in answer for answer in answers)
            return answers
        asked = resolver_event(event)
        answer = api.answer_template if asked.template == TEMPLATE else api.answer
        return runner.run(answer(asked, name), context=copy_context())
