"""What a backfill reads: files by name, folder and glob, or a stream's address with a range."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from ..domain.activity import format_time_ms
from ..io.addresses import parse_address
from ..io.errors import UsageError
from ..io.file_ranges import local_path, shown

_RANGE_OPTIONS: Final = ("start_time", "start_offset", "end_time", "end_offset", "start")
_LEFT_OUT: Final = (".", "_")  # hidden files, and what Spark and Hadoop write beside data


def find_files(sources: Sequence[str]) -> list[str]:
    """The files of names, folders (with all below them) and globs, in order, each once.

    Hidden files, and those whose name begins with an underscore, are left out of folders and globs.

    Raises:
        UsageError: a glob or a folder holds none.
    """
    found: dict[str, None] = {}
    for source in sources:
        path = local_path(source)
        if Path(path).is_dir():
            inside = sorted(str(one) for one in Path(path).rglob("*") if one.is_file() and not _hidden(one, Path(path)))
            if not inside:
                raise UsageError(f"{shown(path)}: the folder holds no files; check the name")
        elif glob.has_magic(path) and not Path(path).exists():
            matching = glob.glob(path, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            inside = sorted(one for one in matching if Path(one).is_file() and not Path(one).name.startswith(_LEFT_OUT))
            if not inside:
                raise UsageError(f"{shown(path)}: matches no file; check the pattern, and quote it from the shell")
        else:
            inside = [path]
        found.update(dict.fromkeys(str(Path(one).absolute()) for one in inside))
    return list(found)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(_LEFT_OUT) for part in file.relative_to(folder).parts)


def ranged_source(source: str, from_ms: int | None, to_ms: int | None) -> str:
    """A stream's address with the range of a backfill as its options.

    >>> ranged_source("kafka://host:9092/topic", 0, None)
    'kafka://host:9092/topic?start_time=1970-01-01T00%3A00%3A00.000Z'

    Raises:
        UsageError: the address has a range of its own besides.
    """
    address = parse_address(source, "source")
    options = dict(address.options)
    times = {"start_time": from_ms, "end_time": to_ms}
    given = {name: format_time_ms(value) for name, value in times.items() if value is not None}
    if given and not options.keys().isdisjoint(_RANGE_OPTIONS):
        raise UsageError("--from and --to: the address has a range of its own; leave one of them out")
    options |= given
    if address.scheme == "kafka" and not any(name in options for name in ("start_time", "start_offset", "start")):
        options["start_offset"] = "0"  # not where the live worker's group is, which is where a bounded read goes on
    return f"{address.scheme}://{address.target}" + (f"?{urlencode(options)}" if options else "")
