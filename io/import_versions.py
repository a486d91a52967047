"""The versions of imports in the fan identity table: records, the pointer to the active one, and packed lists of fans.

A version's fans stand in the table twice: each in an item of the fan's own partition, which readers get with one read,
and packed by bucket, so that the whole version can be compared with another and deleted without reading the table.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import base64
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec
import pyarrow as pa
from pyarrow import ipc

from ..domain.imports import ImportKind, Pointer, VersionRecord, pointer_item
from .errors import BackendUnavailableError
from .import_records import VERSION_SK, active_pointer, version_record, version_records
from .ports import Item, Table

_PACKED_BYTES: Final = 300_000
"""Of a chunk's text; DynamoDB takes 400 KB an item."""


class Part(StrEnum):
    """What is packed of a version."""

    FANS = "FANS"
    CHANGES = "CHANGES"


class ImportConflictError(BackendUnavailableError):
    """Another run moved the pointer meanwhile: what was compared is not what is active."""


def pack(fans: Any) -> str:
    """A table as text: an Arrow IPC stream compressed with zstd, in base64.

    Args:
        fans: a ``pyarrow.Table``.
    """
    return base64.b64encode(to_bytes(fans)).decode()


def unpack(text: str) -> Any:
    """The table of a text that ``pack`` made."""
    return from_bytes(base64.b64decode(text))


def to_bytes(table: Any) -> bytes:
    """A table as an Arrow IPC stream compressed with zstd."""
    sink = pa.BufferOutputStream()
    options = ipc.IpcWriteOptions(compression="zstd")
    with ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes) -> Any:
    """The table of an Arrow IPC stream."""
    with ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()


class ImportVersions:
    """The versions of one kind of import.

    Args:
        table: the fan identity table.
        kind: of the import.

    Every method raises BackendUnavailableError where the table is out of reach.
    """

    def __init__(self, table: Table, kind: ImportKind) -> None:
        self._table = table
        self.kind = kind

    def pointer(self) -> Pointer:
        """Which version is active."""
        return active_pointer(self._table, self.kind)

    def move(self, seen: Pointer, version: str | None, at_ms: int) -> Pointer:
        """Makes another version active, in one write.

        Args:
            seen: the pointer the decision was made on.
            version: to be active, or None for none.
            at_ms: now, epoch milliseconds.

        Raises:
            ImportConflictError: the pointer was moved since it was seen.
        """
        pointer = Pointer(version, seen.generation + 1, at_ms)
        item = pointer_item(self.kind, pointer)
        (written,) = self._table.put_if_newer([(f"{pointer.generation:012d}", item)])
        # DynamoDB may say False of a write that was made, where the answer was lost and the write tried again.
        if written is not True and self.pointer() != pointer:
            raise ImportConflictError(
                f"another run made another {self.kind} version active meanwhile; look at it with: "
                "fan-identity imports list"
            )
        return pointer

    def save(self, record: VersionRecord) -> None:
        """Writes a version's record."""
        item: dict[str, Any] = msgspec.to_builtins(record)
        self._table.put({"PK": self.kind.pk, "SK": VERSION_SK + record.version, "type": "importVersion", **item})

    def record(self, version: str) -> VersionRecord | None:
        """A version's record, or None where there is no such version."""
        return version_record(self._table, self.kind, version)

    def records(self) -> list[VersionRecord]:
        """All versions' records, the newest first."""
        return version_records(self._table, self.kind)

    def put_bucket(self, version: str, part: Part, bucket: int, fans: Any) -> None:
        """Writes a bucket's packed list; a bucket without fans is not written.

        Args:
            version: whose.
            part: what it lists.
            bucket: 0 to 255.
            fans: a ``pyarrow.Table`` with a column ``user``.
        """
        self._table.batch_put(self.chunks(version, part, bucket, fans))

    def chunks(self, version: str, part: Part, bucket: int, fans: Any) -> list[Item]:
        """The items of a bucket's packed list, as ``put_bucket`` writes them."""
        return [
            {"PK": self._pk(version), "SK": f"{part}#{bucket:02x}#{number:03d}", "type": "importChunk", "packed": text}
            for number, text in enumerate(_chunks(fans))
        ]

    def bucket(self, version: str, part: Part, bucket: int) -> Any | None:
        """A bucket's list as a ``pyarrow.Table``, or None where it has none."""
        items = self._table.query(self._pk(version), f"{part}#{bucket:02x}#")
        return pa.concat_tables([unpack(item["packed"]) for item in items]) if items else None

    def replace_bucket(self, version: str, part: Part, bucket: int, fans: Any) -> None:
        """Writes a bucket's list anew and deletes what is left of the former one."""
        pk = self._pk(version)
        before = {item["SK"] for item in self._table.query(pk, f"{part}#{bucket:02x}#")}
        chunks = self.chunks(version, part, bucket, fans)
        self._table.batch_put(chunks)
        kept = {chunk["SK"] for chunk in chunks}
        self._table.batch_delete([(pk, sk) for sk in sorted(before - kept)])

    def delete_bucket(self, version: str, bucket: int) -> None:
        """Deletes a bucket's lists of a version. The fans' items must be deleted before: nothing else names them."""
        items = [
            (item["PK"], item["SK"])
            for part in Part
            for item in self._table.query(self._pk(version), f"{part}#{bucket:02x}#")
        ]
        self._table.batch_delete(items)

    def forget(self, version: str) -> None:
        """Deletes a version's record; the last step of deleting it."""
        self._table.batch_delete([(self.kind.pk, VERSION_SK + version)])

    def _pk(self, version: str) -> str:
        return f"{self.kind.pk}#{version}"


def _chunks(fans: Any) -> Iterator[str]:
    """Packs a list in as few texts as their size allows."""
    if fans.num_rows == 0:
        return
    text = pack(fans)
    if len(text) <= _PACKED_BYTES or fans.num_rows == 1:
        yield text
        return
    half = fans.num_rows // 2
    yield from _chunks(fans.slice(0, half))
    yield from _chunks(fans.slice(half))
