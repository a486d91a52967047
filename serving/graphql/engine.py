"""Runs GraphQL documents: limits first, parsed and validated ones kept, errors in the reference's shape."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, Final

import graphql
import msgspec
from cachetools import LRUCache
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    SelectionSetNode,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
)

from ...io.telemetry import tracing
from ..context import FunctionError, Request
from ..problems import seen_error
from .limits import DEVELOPMENT, PRODUCTION, Limits, check_document, check_text, refuse

_graphql: Any = graphql  # only partly typed
_execute = _graphql.execute
_DOCUMENTS_KEPT: Final = 256
_LONGEST_KEPT: Final = 4_000
_MAX_ERRORS: Final = 5
_LONGEST_NAME: Final = 64

COSTS: Final[Mapping[str, int]] = {
    "accountFanscore": 7,
    "checkLiveness": 4,
    "demandRecordSave": 4,
    "demand": 2,
    "eventDetails": 1,
    "upsertEntry": 1,
    "getArmScore": 1,
    "history": 5,
    "armScore": 1,
    "campaign": 1,
    "accountInfo": 1,
    "phoneScore": 1,
    "eligibility": 1,
    "artist": 1,
}
"""Questions to data sources, by field; what an API key's rate limit counts. A query costs at least 1."""


class Operation(msgspec.Struct, rename="camel"):
    """One operation as it comes over HTTP.

    Attributes:
        query: the document.
        variables: by name.
        operation_name: which of the document's operations, where it has several.
        extensions: ``{"asked": true}`` has the answer say which data sources were asked, and how long each took;
            for services, and in development.
    """

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None

    @property
    def wants_asked(self) -> bool:
        """Whether the answer is to say who was asked, and how long that took."""
        return bool(self.extensions and self.extensions.get("asked"))


_decoder: Final = msgspec.json.Decoder(Operation | list[Operation])

Admit = Callable[[int], Awaitable[None]]
"""Takes a query's cost out of the caller's rate limit; raises FunctionError 429 where it is used up."""


async def admit_all(cost: int) -> None:
    """No rate limit."""
    del cost


class _Prepared(msgspec.Struct, frozen=True):
    document: DocumentNode
    cost: int


class Engine:
    """Answers GraphQL requests over a schema.

    Args:
        schema: with its resolvers.
        development: introspection, suggestions in errors, deeper queries.
        limits: what a query may have; those of ``development`` where None.
    """

    def __init__(self, schema: GraphQLSchema, *, development: bool = False, limits: Limits | None = None) -> None:
        self._schema = schema
        self._development = development
        self._limits = limits or (DEVELOPMENT if development else PRODUCTION)
        self._rules = [*specified_rules] if development else [*specified_rules, NoSchemaIntrospectionCustomRule]
        # In development validation says which name was meant.
        self._known = None if development else _field_names(schema)
        self._prepared: LRUCache[str, _Prepared] = LRUCache(_DOCUMENTS_KEPT)

        self.prepare("{ __typename }")  # graphql-core checks the schema with the first query: a fifth of a second

    async def answer(
        self, body: bytes, new_request: Callable[[], Request], admit: Admit = admit_all
    ) -> tuple[int, Any]:
        """Answers a request's body: one operation, or a batch of them, side by side.

        Args:
            body: JSON.
            new_request: makes the context of one operation.
            admit: takes the whole request's cost out of the caller's rate limit.

        Returns:
            HTTP's status and the JSON value of the answer.
        """
        try:
            operations = self._read(body)
            if isinstance(operations, Operation):
                prepared = self.prepare(operations.query)
                await admit(prepared.cost)
                return 200, await self._execute(prepared, operations, new_request())
            documents = [self.prepare(operation.query) for operation in operations]
            await admit(sum(prepared.cost for prepared in documents))
            answers = await asyncio.gather(
                *(
                    self._execute(prepared, operation, new_request())
                    for prepared, operation in zip(documents, operations, strict=True)
                )
            )
        except FunctionError as error:
            return int(error.error_type), {"data": None, "errors": [error.shown()]}
        return 200, answers

    def _read(self, body: bytes) -> Operation | Sequence[Operation]:
        try:
            operations: Operation | list[Operation] = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise FunctionError(
                'the body is JSON such as {"query": "…", "variables": {}}', "400", "BAD_REQUEST"
            ) from None
        if isinstance(operations, list):
            if len(operations) > self._limits.batch:
                raise refuse("operations in one request", self._limits.batch, "BATCH_TOO_LARGE")
            if not operations:
                raise FunctionError("the batch is empty", "400", "BAD_REQUEST")
        return operations

    def prepare(self, query: str) -> _Prepared:
        """Checks, parses and validates a document, or takes it from those kept.

        Raises:
            FunctionError: 400, it is beyond a limit or no valid query.
        """
        kept = self._prepared.get(query)
        if kept is not None:
            return kept
        check_text(query, self._limits, self._known)
        try:
            document = parse(query, no_location=not self._development)
        except (GraphQLError, RecursionError) as error:
            message = error.message if isinstance(error, GraphQLError) else "too deep"
            raise FunctionError(f"the query cannot be read: {message}", "400", "BAD_QUERY") from None
        check_document(document, self._limits)
        problems = validate(
            self._schema, document, self._rules, max_errors=_MAX_ERRORS, hide_suggestions=not self._development
        )
        if problems:
            raise FunctionError(problems[0].message, "400", "BAD_QUERY")
        prepared = _Prepared(document, _cost(document))
        if len(query) <= _LONGEST_KEPT:
            self._prepared[query] = prepared
        return prepared

    async def _execute(self, prepared: _Prepared, operation: Operation, request: Request) -> dict[str, Any]:
        if not tracing.switch.on:
            return await self._executed(prepared, operation, request)
        with tracing.child_span(*_described(prepared.document, operation.operation_name)) as span:
            shown_result = await self._executed(prepared, operation, request)
            if "errors" in shown_result:
                span.fail(shown_result["errors"][0]["errorInfo"]["code"])
        return shown_result

    async def _executed(self, prepared: _Prepared, operation: Operation, request: Request) -> dict[str, Any]:
        answer = _execute(
            self._schema,
            prepared.document,
            context_value=request,
            variable_values=operation.variables,
            operation_name=operation.operation_name,
            max_coercion_errors=_MAX_ERRORS,
            hide_suggestions=not self._development,
        )
        result: ExecutionResult = await answer if isawaitable(answer) else answer
        shown_result: dict[str, Any] = {"data": result.data}
        if result.errors:
            shown_result["errors"] = [shown(error, request) for error in result.errors]
        extensions = self._extensions(operation, request)
        if extensions:
            shown_result["extensions"] = extensions
        return shown_result

    def _extensions(self, operation: Operation, request: Request) -> dict[str, Any]:
        extensions: dict[str, Any] = {}
        if request.degraded:
            extensions["degraded"] = sorted(request.degraded)
        if operation.wants_asked and (self._development or request.identity.reads_any_fan):
            extensions["asked"] = [
                {
                    "function": asked.function,
                    "source": asked.source,
                    "ms": round(asked.milliseconds, 3),
                    "outcome": asked.outcome,
                }
                for asked in request.asked
            ]
        return extensions


def _described(document: DocumentNode, operation_name: str | None) -> tuple[str, str, dict[str, str]]:
    """An operation's span: name, kind, attributes.

    The document is left out, which may hold values; so is a name with a digit in it, which may be somebody's id.
    """
    operation = get_operation_ast(document, operation_name)
    kind = "unknown" if operation is None else operation.operation.value
    attributes = {"graphql.operation.type": kind}
    name = operation.name.value if operation is not None and operation.name is not None else ""
    if len(name) <= _LONGEST_NAME and name.replace("_", "").isalpha():
        attributes["graphql.operation.name"] = name
    return f"GraphQL {kind}", "internal", attributes


def _field_names(schema: GraphQLSchema) -> frozenset[str]:
    names = {"__typename"}
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            names.update(kind.fields)
    return frozenset(names | {"__schema", "__type"})


def shown(error: GraphQLError, request: Request) -> dict[str, Any]:
    """An error as callers see it; what nobody expected is told to the log alone."""
    cause = error.original_error
    path = {"path": error.path} if error.path else {}
    if cause is None or isinstance(cause, GraphQLError):
        # graphql-core's own: a variable that does not fit, an operation that is not there.
        seen = FunctionError(_without_values(error.message), "400", "BAD_INPUT")
    else:
        seen = seen_error(cause, request.correlation_id)
    return {**seen.shown(), **path}


def _without_values(message: str) -> str:
    """graphql-core quotes a variable's value: it may be personal data."""
    head, separator, _ = message.partition(" has invalid value")
    return f"{head} does not fit its type" if separator else message.partition(":")[0]


def _cost(document: DocumentNode) -> int:
    """Questions the costliest operation may ask; a fragment counts as often as it is used."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    costs = [
        _cost_of(node.selection_set, fragments)
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    ]
    return max(1, *costs)


def _cost_of(selection_set: SelectionSetNode | None, fragments: Mapping[str, FragmentDefinitionNode]) -> int:
    # Limits bound how much this adds up, and refuse fragments that contain themselves.
    cost = 0
    for node in () if selection_set is None else selection_set.selections:
        if isinstance(node, FieldNode):
            cost += COSTS.get(node.name.value, 0) + _cost_of(node.selection_set, fragments)
        elif isinstance(node, FragmentSpreadNode):
            cost += _cost_of(fragments[node.name.value].selection_set, fragments)
        elif isinstance(node, InlineFragmentNode):
            cost += _cost_of(node.selection_set, fragments)
    return cost
