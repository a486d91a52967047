"""``fan-identity schema``: the GraphQL schema, for AppSync, a gateway or code generators."""

import sys
from typing import Annotated

import typer


def schema(
    federation: Annotated[
        bool, typer.Option("--federation/--plain", help="With Apollo federation's fields, or what AppSync takes.")
    ] = True,
) -> None:
    """Print the GraphQL schema (SDL).

    Examples:

      fan-identity schema > subgraph.graphql

      fan-identity schema --plain > appsync.graphql
    """
    from ...serving.graphql.executable import plain_schema, printed_schema  # noqa: PLC0415 - this command alone

    sys.stdout.write(printed_schema() if federation else plain_schema())
