"""After the pointer moved: scores and ARM cache of the fans it changes something for follow it."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
from typing_extensions import override

from ..domain.imports import ImportKind
from ..io.active_imports import ActiveImports
from ..io.backends import Backends
from ..io.import_scores import follow_fans
from ..io.import_versions import ImportVersions, Part
from .batches import count

_PAGE: Final = 1_000


@dataclass
class FollowImport(beam.PTransform[Any, Any]):
    """Numbers of buckets, some at a time, to scores under the imports that are active now; counts ``followed`` fans.

    Goes over the fans for whom a version differs from the one it was compared with. Each one's latest item, the score
    it repeats and the ARM cache are written anew where the imports make a difference. Idempotent; a score caused by a
    newer activity meanwhile stays.

    Attributes:
        kind: of the import.
        version: the version whose changes are gone over: the one made active, or the one taken back.
        backends: table and cache.
    """

    kind: ImportKind
    version: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | beam.ParDo(_Follow(self.kind, self.version, self.backends))


class _Follow(beam.DoFn):
    def __init__(self, kind: ImportKind, version: str, backends: Backends) -> None:
        self._kind = kind
        self._version = version
        self._backends = backends

    def setup(self) -> None:
        self._table = self._backends.open_table()
        self._cache = self._backends.open_cache()
        self._versions = ImportVersions(self._table, self._kind)
        self._imports = ActiveImports(self._table, fresh_seconds=0)

    def process(self, element: Sequence[int]) -> Iterator[int]:
        """Yields how many of the buckets' fans were written anew."""
        lists = (self._versions.bucket(self._version, Part.CHANGES, bucket) for bucket in element)
        users: list[str] = [user for changes in lists if changes is not None for user in changes["user"].to_pylist()]
        followed = 0
        for start in range(0, len(users), _PAGE):
            page = users[start : start + _PAGE]
            followed += follow_fans(page, self._table, self._cache, self._imports)
        count("followed", followed)
        yield followed
