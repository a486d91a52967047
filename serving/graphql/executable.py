"""The executable schema: ``schema.graphql`` with the resolvers, as a subgraph of Apollo federation v2."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ariadne import MutationType, ObjectType, QueryType
from ariadne.contrib.federation import FederatedObjectType, make_federated_schema
from graphql import GraphQLResolveInfo, GraphQLSchema, print_schema

from ..context import FunctionError, Request
from ..resolvers import PARENT_ARGS, RESOLVERS, Resolver
from ..shared import require_reader_of

_MAX_ENTITIES: Final = 50

Field = Callable[..., Awaitable[Any]]


def schema_text() -> str:
    """The SDL as it is written."""
    return Path(__file__).with_name("schema.graphql").read_text(encoding="utf-8")


def build_schema(*, development: bool = False) -> GraphQLSchema:
    """The schema with its resolvers.

    Args:
        development: anyone may read the SDL through ``_service``; else a service alone.
    """
    types: dict[str, Any] = {
        "Query": QueryType(),
        "Mutation": MutationType(),
        "VFApi": ObjectType("VFApi"),
        "Demand": ObjectType("Demand"),
    }
    fan = FederatedObjectType("Fan")
    types["Fan"] = fan
    for name, resolver in RESOLVERS.items():
        type_name, field_name = name.split(".")
        types[type_name].set_field(field_name, _field(resolver, PARENT_ARGS.get(type_name)))
    types["Query"].set_field("api", _nothing)
    types["Query"].set_field("fan", _fan)
    fan.reference_resolver(_fan_reference)
    schema = make_federated_schema(schema_text(), *types.values())
    _guard_federation(schema, development=development)
    return schema


def printed_schema() -> str:
    """The whole schema with federation's fields, as ``fan-identity schema`` prints it."""
    return print_schema(build_schema()) + "\n"


def plain_schema() -> str:
    """The schema as AppSync takes it: without federation's directives, which it does not know."""
    lines = schema_text().split("\n")
    return "\n".join(
        line.replace(' @key(fields: "globalUserId")', "") for line in lines if "@link" not in line
    ).lstrip()


def _field(resolver: Resolver, from_parent: tuple[str, ...] | None) -> Field:
    if from_parent is None:

        async def answer(parent: Any, info: GraphQLResolveInfo[Request], **args: Any) -> Any:
            del parent
            return await resolver.answer(args, info.context)

    else:

        async def answer(parent: Any, info: GraphQLResolveInfo[Request], **args: Any) -> Any:
            return await resolver.answer({**args, **{name: parent[name] for name in from_parent}}, info.context)

    return answer


def _nothing(_: Any, __: GraphQLResolveInfo[Request]) -> dict[str, Any]:
    return {}


def _fan(_: Any, info: GraphQLResolveInfo[Request], *, globalUserId: str) -> dict[str, Any]:
    request: Request = info.context
    require_reader_of(request.identity, globalUserId)
    return {"globalUserId": globalUserId}


def _fan_reference(_: Any, info: GraphQLResolveInfo[Request], representation: Mapping[str, Any]) -> dict[str, Any]:
    global_user_id = representation.get("globalUserId")
    if not isinstance(global_user_id, str):
        raise FunctionError("a Fan is represented by its globalUserId", "400", "BAD_INPUT")
    request: Request = info.context
    require_reader_of(request.identity, global_user_id)
    return {"__typename": "Fan", "globalUserId": global_user_id}


def _guard_federation(schema: GraphQLSchema, *, development: bool) -> None:
    """Bounds ``_entities``, and shows ``_service`` to those introspection would be shown to."""
    query = schema.query_type
    assert query is not None  # noqa: S101 - the schema has one
    entities, service = query.fields["_entities"], query.fields["_service"]
    resolve_entities: Any = entities.resolve
    resolve_service: Any = service.resolve

    def bounded_entities(root: Any, info: GraphQLResolveInfo[Request], *, representations: list[Any]) -> Any:
        if len(representations) > _MAX_ENTITIES:
            raise FunctionError(f"at most {_MAX_ENTITIES} representations", "400", "TOO_MANY_ENTITIES")
        return resolve_entities(root, info, representations=representations)

    def guarded_service(root: Any, info: GraphQLResolveInfo[Request]) -> Any:
        request: Request = info.context
        if not development and not request.identity.reads_any_fan:
            raise FunctionError("the schema is shown to services only", "403", "FORBIDDEN")
        return resolve_service(root, info)

    entities.resolve = bounded_entities
    service.resolve = guarded_service
