"""The fan identity table on an event loop, for workers that need no other. Imports only what its address needs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ..io.addresses import parse_address
from ..io.registry import worker_named
from .data_sources import AsyncTable

NAME: Final = "fan_identity"
"""The table's name in errors."""


@dataclass(frozen=True)
class OpenTable:
    """A table.

    Attributes:
        table: answers.
        check: asks for an answer; raises a FanIdentityError where there is none.
        close: ends its connections.
    """

    table: AsyncTable
    check: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


def open_fan_table(text: str, setting: str, deadline_seconds: float) -> OpenTable:
    """The table of an address: ``dynamodb://table`` or ``sqlite:///file.db``.

    Args:
        text: the address.
        setting: where it came from, for errors.
        deadline_seconds: of a question to it.

    Raises:
        UsageError: the address is none of a table.
    """
    address = parse_address(text, setting)
    if address.scheme == "dynamodb":
        from ..io.asking import waiting_limits  # noqa: PLC0415 - with an HTTP client, which is slow to import
        from ..io.aws_json_async import AsyncAwsClient  # noqa: PLC0415
        from ..io.dynamodb.async_table import DynamoDbAsyncTable  # noqa: PLC0415

        client = AsyncAwsClient("dynamodb", address, setting)
        in_dynamodb = DynamoDbAsyncTable(client, address, setting, NAME, waiting_limits(deadline_seconds))
        return OpenTable(in_dynamodb, in_dynamodb.check, client.close)
    from ..io.backends import sqlite_store  # noqa: PLC0415
    from ..io.sqlite.async_table import SqliteAsyncTable  # noqa: PLC0415

    name = address.options.get("table", worker_named("scoreUsers").table_name)
    in_sqlite = SqliteAsyncTable(sqlite_store(text, setting), name, NAME, deadline_seconds)
    return OpenTable(in_sqlite, in_sqlite.check, in_sqlite.close)
