"""The second half of an import: the work folder's fans become a version's items; and how a version is deleted again."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
import msgspec
import pyarrow as pa
from typing_extensions import override

from ..domain.import_merge import having_value
from ..domain.imports import ImportKind, fan_item
from ..domain.keys import user_pk
from ..domain.records import DeadLetter
from ..io.backends import Backends
from ..io.errors import BackendUnavailableError
from ..io.import_versions import ImportVersions, Part, from_bytes
from ..io.ports import Item
from ..io.work_folder import WorkFolder
from .batches import count

_PAGE: Final = 5_000

_decode_letters = msgspec.msgpack.Decoder(list[DeadLetter]).decode


@dataclass
class StageFans(beam.PTransform[Any, Any]):
    """Names of the work folder's buckets, some at a time, to the version's items; counts ``staged`` fans.

    Several buckets are an element, so that a small import fills its requests to the table as a large one does.

    The buckets' packed lists are written before their fans' items, so that a version whose staging was killed can be
    deleted. Readers see none of it until the pointer moves.

    Attributes:
        kind: of the import.
        version: the new version.
        backends: the table.
        work: where its fans are.
    """

    kind: ImportKind
    version: str
    backends: Backends
    work: WorkFolder

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | beam.ParDo(_Stage(self.kind, self.version, self.backends, self.work))


class _Stage(beam.DoFn):
    def __init__(self, kind: ImportKind, version: str, backends: Backends, work: WorkFolder) -> None:
        self._kind = kind
        self._version = version
        self._backends = backends
        self._work = work

    def setup(self) -> None:
        self._table = self._backends.open_table()
        self._versions = ImportVersions(self._table, self._kind)

    def process(self, element: Sequence[str]) -> Iterator[int]:
        """Yields how many fans the buckets have."""
        packed: list[Item] = []
        tables: list[Any] = []
        for name in element:
            fans = from_bytes(self._work.read(name))
            bucket = int(name.rpartition("-")[2], 16)
            changes = fans.filter(fans["changed"]).select(["user"])
            packed += self._versions.chunks(self._version, Part.CHANGES, bucket, changes)
            tables.append(having_value(fans).drop_columns(["changed"]))
            packed += self._versions.chunks(self._version, Part.FANS, bucket, tables[-1])
        self._table.batch_put(packed)
        fans = pa.concat_tables(tables)
        for start in range(0, fans.num_rows, _PAGE):
            self._write(fans.slice(start, _PAGE))
        count("staged", fans.num_rows)
        for _ in element:
            self._work.mark("staged")
        yield fans.num_rows

    def _write(self, fans: Any) -> None:
        users, values = fans["user"].to_pylist(), fans["value"].to_pylist()
        sizes = fans["size"].to_pylist() if "size" in fans.column_names else [None] * len(users)
        items = [
            fan_item(self._kind, self._version, user_pk(user), value, size, updated_at)
            for user, value, size, updated_at in zip(users, values, sizes, fans["updatedAt"].to_pylist(), strict=True)
        ]
        refused = next((outcome for outcome in self._table.batch_put(items) if outcome is not None), None)
        if refused is not None:
            # Ids and values were checked when they were read: no table refuses them one by one.
            raise BackendUnavailableError(f"the table refuses a fan's {self._kind} item: {refused.error}")


@dataclass
class WriteBadRows(beam.PTransform[Any, Any]):
    """Names of the work folder's files of bad rows to dead letters; counts them as ``dead_lettered.<reason>``."""

    backends: Backends
    work: WorkFolder

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | beam.ParDo(_WriteBadRows(self.backends, self.work))


class _WriteBadRows(beam.DoFn):
    def __init__(self, backends: Backends, work: WorkFolder) -> None:
        self._backends = backends
        self._work = work

    def setup(self) -> None:
        self._dead_letters = self._backends.open_dead_letters()

    def process(self, element: str) -> Iterator[int]:
        """Yields how many letters the file holds."""
        letters = _decode_letters(self._work.read(element))
        for start in range(0, len(letters), _PAGE):
            self._dead_letters.write(letters[start : start + _PAGE])
        for letter in letters:
            count(f"dead_lettered.{letter.reason}", 1)
        yield len(letters)


@dataclass
class DeleteFans(beam.PTransform[Any, Any]):
    """Numbers of buckets to nothing: deletes a version's items in them; counts ``deleted`` fans.

    Attributes:
        kind: of the import.
        version: one nobody reads any more.
        backends: the table.
    """

    kind: ImportKind
    version: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | beam.ParDo(_Delete(self.kind, self.version, self.backends))


class _Delete(beam.DoFn):
    def __init__(self, kind: ImportKind, version: str, backends: Backends) -> None:
        self._kind = kind
        self._version = version
        self._backends = backends

    def setup(self) -> None:
        self._table = self._backends.open_table()
        self._versions = ImportVersions(self._table, self._kind)

    def process(self, element: int) -> Iterator[int]:
        """Yields how many fans the bucket had."""
        fans = self._versions.bucket(self._version, Part.FANS, element)
        users: list[str] = [] if fans is None else fans["user"].to_pylist()
        sk = self._kind.fan_sk(self._version)
        for start in range(0, len(users), _PAGE):
            self._table.batch_delete([(user_pk(user), sk) for user in users[start : start + _PAGE]])
        self._versions.delete_bucket(self._version, element)
        count("deleted", len(users))
        yield len(users)
