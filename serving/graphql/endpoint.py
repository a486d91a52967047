"""``/graphql`` over HTTP: POST of ``application/json``, nothing else asks for anything.

Source: GraphQL over HTTP (working draft), with ``application/json`` answers. A GET never runs an operation, so no link
can start a mutation; another content type is refused, so no form of another site can (CSRF).
"""

from typing import Final

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from ...domain.fanscore import Boosts
from ..context import FunctionError, Request
from ..data_sources import DataSources
from ..http.authentication import Authentication
from ..http.rest import STATE_KEY
from .engine import Engine

PATH: Final = "/graphql"

_encode: Final = msgspec.json.Encoder().encode


def graphql_route(engine: Engine, sources: DataSources, authentication: Authentication, boosts: Boosts) -> Route:
    """The route of the API.

    Args:
        engine: answers operations.
        sources: what they ask.
        authentication: finds out who asks, and how often they may.
        boosts: points of the account fan score.
    """

    async def answer(http: HttpRequest) -> Response:
        if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise FunctionError("send application/json", "415", "UNSUPPORTED_MEDIA_TYPE")
        identity = await authentication.identify(http.scope)
        body = await http.body()
        correlation: str = http.scope["state"][STATE_KEY]

        def new_request() -> Request:
            return Request(sources, identity, correlation, boosts)

        async def admit(cost: int) -> None:
            await authentication.admit(identity, cost)

        status, value = await engine.answer(body, new_request, admit)
        return Response(_encode(value), status, media_type="application/json")

    return Route(PATH, answer, methods=["POST"])
