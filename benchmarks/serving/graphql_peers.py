"""The GraphQL libraries that were considered, each with the same schema of eight fields that answer at once.

Where a library lets one keep parsed and validated documents, it does; else what it comes with is used.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import ariadne
import graphql
import strawberry
from strawberry.extensions import ParserCache, ValidationCache

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")
_SDL = "type Query { " + " ".join(f"{name}: Int!" for name in NAMES) + " }"
_QUERY = "{ " + " ".join(NAMES) + " }"

_graphql: Any = graphql  # only partly typed, as ariadne is
_ariadne: Any = ariadne


async def _one(*_: Any) -> int:
    return 1


@lru_cache(64)
def _parsed(query: str) -> graphql.DocumentNode:
    return graphql.parse(query)


def _parser(context: Any, data: dict[str, Any]) -> graphql.DocumentNode:
    del context
    return _parsed(data["query"])


def _valid(*_: Any, **__: Any) -> list[graphql.GraphQLError]:
    return []


@strawberry.type
class _Query:
    @strawberry.field
    async def a(self) -> int:
        return 1

    @strawberry.field
    async def b(self) -> int:
        return 1

    @strawberry.field
    async def c(self) -> int:
        return 1

    @strawberry.field
    async def d(self) -> int:
        return 1

    @strawberry.field
    async def e(self) -> int:
        return 1

    @strawberry.field
    async def f(self) -> int:
        return 1

    @strawberry.field
    async def g(self) -> int:
        return 1

    @strawberry.field
    async def h(self) -> int:
        return 1


def ways() -> dict[str, Callable[[], Awaitable[object]]]:
    """By library how it answers the query."""
    query: Any = ariadne.QueryType()
    for name in NAMES:
        query.set_field(name, _one)
    schema: Any = _ariadne.make_executable_schema(_SDL, query)
    document = graphql.parse(_QUERY)

    async def core_cached() -> object:
        return await _graphql.execute(schema, document)

    async def core() -> object:
        return await _graphql.graphql(schema, _QUERY)

    async def ariadne_as_it_comes() -> object:
        return await _ariadne.graphql(schema, {"query": _QUERY})

    async def ariadne_cached() -> object:
        return await _ariadne.graphql(
            schema,
            {"query": _QUERY},
            query_parser=_parser,
            query_validator=_valid,
        )

    as_it_comes = strawberry.Schema(_Query)
    keeping: Any = [ParserCache(), ValidationCache()]
    cached = strawberry.Schema(_Query, extensions=keeping)
    ours = f"graphql-core {version('graphql-core')}"
    return {
        f"{ours}, documents kept (ours)": core_cached,
        f"{ours}": core,
        f"ariadne {version('ariadne')}": ariadne_as_it_comes,
        f"ariadne {version('ariadne')}, documents kept": ariadne_cached,
        f"strawberry {version('strawberry-graphql')}": lambda: as_it_comes.execute(_QUERY),
        f"strawberry {version('strawberry-graphql')}, documents kept": lambda: cached.execute(_QUERY),
    }
