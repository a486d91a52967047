"""``POST /graphql``. Not GET: a query in an address ends in logs, and a mutation by GET can be made by an image."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from ...domain.access import Identity
from ...domain.fanscore import Boosts
from ..context import Request
from ..data_sources import DataSources
from ..graphql.engine import Engine
from .answers import read_body
from .authentication import Authentication
from .rest import STATE_KEY

PATH: Final = "/graphql"
_encode: Final = msgspec.json.Encoder().encode


def graphql_route(engine: Engine, sources: DataSources, authentication: Authentication, boosts: Boosts) -> Route:
    """The route of the GraphQL API.

    Args:
        engine: answers documents.
        sources: what functions ask.
        authentication: finds out who asks.
        boosts: points of the account fan score.
    """

    async def post(request: HttpRequest) -> Response:
        identity = await authentication.identify(request.scope)
        correlation: str = request.scope["state"][STATE_KEY]

        def new_request() -> Request:
            return Request(sources, identity, correlation, boosts)

        body = await read_body(request.scope, request.receive)
        status, answer = await engine.answer(body, new_request, _admit(authentication, identity))
        return Response(_encode(answer), status, media_type="application/json")

    return Route(PATH, post, methods=["POST"])


def _admit(authentication: Authentication, identity: Identity) -> Callable[[int], Awaitable[None]]:
    async def admit(cost: int) -> None:
        await authentication.admit(identity, cost)

    return admit
