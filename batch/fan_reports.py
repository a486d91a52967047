"""Reports and other results on disk that name a fan."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from ..domain.fan_traces import Fan, speaks_of
from ..io.errors import UsageError
from .report_text import label, shown

_PAGES: Final = frozenset({".html", ".htm"})
_WHOLE: Final = frozenset({".json", ".csv"})  # a cell of CSV may hold line breaks
_LINES: Final = frozenset({".jsonl", ".ndjson"})
_SPOKEN: Final = frozenset({"title", "aria-label", "alt"})
_MOST_BYTES: Final = 256 * 1_024 * 1_024


class Reports:
    """Files in a folder that name the fan. They are made of many fans, and deleted as a whole.

    Pages (``.html``), and files of JSON, JSON lines, CSV and Parquet are looked into, in the folder's folders too;
    links are not followed.

    Args:
        folder: where they are.
        fan: who.
        delete: whether ``erase`` deletes them; else they are only found.

    Raises:
        UsageError: there is no such folder.
    """

    name = "reports"

    def __init__(self, folder: Path, fan: Fan, *, delete: bool) -> None:
        if not folder.is_dir():
            raise UsageError(f"--report-folder: there is no folder {folder}")
        self.deletes = delete
        self._folder = folder
        self._fan = fan

    def find(self) -> list[Mapping[str, Any]]:
        """The files.

        Raises:
            UsageError: one cannot be read, or is over 256 MB (Parquet may be larger).
        """
        return [{"file": str(path), "bytes": path.stat().st_size} for path in self._files()]

    def erase(self) -> int:
        """Deletes them where that was asked for; how many are gone."""
        if not self.deletes:
            return 0
        files = list(self._files())
        for path in files:
            path.unlink(missing_ok=True)
        return len(files)

    def _files(self) -> Iterator[Path]:
        for path in sorted(self._folder.rglob("*")):
            if not path.is_symlink() and path.is_file() and _file_speaks_of(path, self._fan):
                yield path


def _file_speaks_of(path: Path, fan: Fan) -> bool:
    kind = path.suffix.lower()
    if kind in _PAGES:
        return page_speaks_of(_content(path), fan)
    if kind in _WHOLE:
        return speaks_of(_content(path), fan)
    if kind in _LINES:
        return any(speaks_of(line, fan) for line in _content(path).split(b"\n"))
    return kind == ".parquet" and _table_speaks_of(path, fan)


def _table_speaks_of(path: Path, fan: Fan) -> bool:
    """Whether a text column of a Parquet file has one of the fan's names; read a part at a time."""
    import pyarrow as pa  # noqa: PLC0415 - takes 0.2 s to import
    from pyarrow import compute, parquet  # noqa: PLC0415

    names = pa.array(sorted(fan.names))
    try:
        with parquet.ParquetFile(path) as file:
            return any(
                compute.any(compute.is_in(column.cast(pa.string()), names)).as_py()
                for batch in file.iter_batches()
                for column in batch.columns
                if _is_text(column.type)
            )
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"--report-folder: {path} cannot be read: {error}") from None


def _is_text(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    inner = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(inner) or types.is_large_string(inner)


def _content(path: Path) -> bytes:
    if path.stat().st_size > _MOST_BYTES:
        raise UsageError(f"--report-folder: {path} is over 256 MB, too large for a report; move it elsewhere")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"--report-folder: {path} cannot be read: {error.strerror}") from None


class _Page(HTMLParser):
    """Gathers a page's texts and titles, and the data of its plots."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: set[str] = set()
        self._script: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = (dict(attrs).get("type") or "") if tag == "script" else None
        self.texts.update(value for name, value in attrs if value and name in _SPOKEN)

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.texts.update((data, data.strip()))
        elif self._script == "application/json":
            self.texts.update(_texts_of(data))


def _texts_of(data: str) -> Iterator[str]:
    try:
        waiting: list[Any] = [msgspec.json.decode(data)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += cast("dict[str, Any]", value).values()
        elif isinstance(value, list):
            waiting += cast("list[Any]", value)
        elif isinstance(value, str):
            yield value


def page_speaks_of(page: bytes, fan: Fan) -> bool:
    """Whether a report names a fan: as the whole text of an element, as a title, or in a plot's data.

    Reports shorten names; what is shortened ends in a part of its hash, so it still names this fan alone.
    """
    parsed = _Page()
    parsed.feed(page.decode(errors="replace"))
    parsed.close()
    names = fan.names
    return not parsed.texts.isdisjoint({*names, *map(shown, names), *map(label, names)})
