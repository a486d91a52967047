"""Committed positions in DynamoDB: how far each worker has read each source."""

from ...domain.keys import user_token
from ..addresses import Address
from ..telemetry import tracing
from ..telemetry.doors import database_call
from .calls import Attributes, TableCalls


class DynamoDbPositions:
    """How far workers have read their sources: items ``POSITION#<worker>``, sort key the source, in a table.

    A source or worker of over 1,024 bytes is named by its hash. Errors as ``DynamoDbTable`` raises them.
    """

    def __init__(self, calls: TableCalls) -> None:
        self._calls = calls
        self._committed: dict[tuple[str, str], str] = {}

    @classmethod
    def of(cls, address: Address, setting: str) -> "DynamoDbPositions":
        """The positions in the table of an address ``dynamodb://table``; may be the table that holds scores.

        Raises:
            UsageError: the address names no table, or has an unknown option.
        """
        return cls(TableCalls(address, setting))

    def load(self, worker: str, source: str) -> str:
        """The committed position, or "" where there is none."""
        answer = self._calls.call("get_item", Key=_key(worker, source), ConsistentRead=True)
        return str(answer["Item"]["position"]["S"]) if "Item" in answer else ""

    @property
    def place(self) -> tracing.Attributes:
        """As spans name it."""
        return self._calls.place

    @database_call("UpdateItem")
    def commit(self, worker: str, source: str, position: str) -> None:
        """Remembers that everything up to ``position`` had its effect.

        Written at once, but for a position that is the one this object wrote last.
        """
        if self._committed.get((worker, source)) == position:
            return
        self._calls.call("put_item", Item={**_key(worker, source), "position": {"S": position}})
        self._committed[worker, source] = position


def _key(worker: str, source: str) -> Attributes:
    return {"PK": {"S": "POSITION#" + user_token(worker)}, "SK": {"S": user_token(source)}}
