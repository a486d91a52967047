"""Files wherever they lie: on disk, in S3 or in Google Cloud Storage, opened by address.

Addresses are plain paths, ``file:///absolute/path``, ``s3://bucket/key`` and ``gs://bucket/key``; the latter two take
``?region=``, ``?endpoint=http://host:port`` and ``?anonymous=true``. Credentials are the default chain's.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from .errors import BackendUnavailableError, UsageError
from .file_ranges import file_size, local_path, shown

_OPTIONS: Final = {"s3": ("anonymous", "endpoint", "region"), "gs": ("anonymous", "endpoint")}
_CONNECT_SECONDS: Final = 5
_REQUEST_SECONDS: Final = 60
_ATTEMPTS: Final = 3
_GCS_PATIENCE: Final = timedelta(seconds=10)
_AWS_CODE: Final = re.compile(r"AWS Error ([A-Z_]+)")
_REFUSED: Final = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "HTTP response code 403")
_NO_CREDENTIALS: Final = ("Could not create a OAuth2 access token", "UNAUTHENTICATED", "HTTP status code 401")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it stood when it was looked at.

    Attributes:
        address: an absolute path, or ``s3://`` or ``gs://`` with its options: opens it in any process.
        path: the address without options: its end is the file's own name.
        name: likewise, as it may stand in a one-line message.
        size: in bytes.
        modified_at_ms: when it was last written, epoch milliseconds.
        mark: tells, with the size, whether another file stands there now.
    """

    address: str
    path: str
    name: str
    size: int
    modified_at_ms: int
    mark: str


@dataclass(frozen=True)
class _Place:
    """An address of a store, taken apart.

    Attributes:
        scheme: ``s3`` or ``gs``.
        path: ``bucket/key``, as the file system calls it.
        options: in the order of their names.
    """

    scheme: str
    path: str
    options: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return shown(f"{self.scheme}://{self.path}")

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self.path}" + (f"?{urlencode(self.options)}" if self.options else "")


def find_files(address: str) -> Iterator[StoredFile]:
    """The file of an address; of one that ends in ``/`` all files below it, in the order of their names.

    Files and folders below it whose names begin with ``_`` or ``.`` are left out: they are notes and unfinished work
    of those who write such folders (``_SUCCESS``, ``_temporary/``).

    Raises:
        UsageError: it is missing, a folder without ``/``, unreadable, or its bucket or credentials are wrong.
        BackendUnavailableError: the store is out of reach.
    """
    place = _place(address)
    if place is None:
        yield from _local_files(address)
        return
    with _translated(place.name):
        found = _filesystem(place.scheme, place.options)
        if not place.path.endswith("/"):
            about = [found.get_file_info(place.path)]
        else:
            about = found.get_file_info(pafs.FileSelector(place.path.rstrip("/"), recursive=True))
    for info in sorted(about, key=lambda info: info.path):
        if place.path.endswith("/"):
            if info.type == pafs.FileType.File and _counts(info.path[len(place.path.rstrip("/")) + 1 :]):
                yield _stored(_Place(place.scheme, info.path, place.options), info)
            continue
        if info.type == pafs.FileType.Directory:
            raise UsageError(f"{place.name}: is a folder; write {place.name}/ to read all files in it")
        if info.type != pafs.FileType.File:
            raise UsageError(_absent(place.name))
        yield _stored(place, info)


def look_again(file: str) -> StoredFile:
    """What stands at a file's address now.

    Args:
        file: its address.

    Raises:
        UsageError: it is gone.
        BackendUnavailableError: the store is out of reach.
    """
    return next(find_files(file))


def open_file(address: str) -> Any:
    """Opens a file for reading at any place, as a ``pyarrow.NativeFile``.

    Raises:
        UsageError: it is gone, or may not be read.
        BackendUnavailableError: the store is out of reach.
    """
    place = _place(address)
    if place is None:
        with _translated(shown(address)):
            return pa.OSFile(local_path(address))
    with _translated(place.name):
        return _filesystem(place.scheme, place.options).open_input_file(place.path)


@contextmanager
def reading(name: str) -> Generator[None]:
    """Turns what a store's files raise in the block into errors of ours: one line that names file and remedy.

    Damage of the contents (``pyarrow.ArrowException``, and ``OSError`` without a number that is not of the store) is
    raised as it is: only the format's reader knows what it means.

    Args:
        name: of the file, for people.

    Raises:
        BackendUnavailableError: the disk or the store failed.
        UsageError: it is gone, or may not be read.
    """
    with _translated(name, only_stores=True):
        yield


def _local_files(address: str) -> Iterator[StoredFile]:
    path = os.path.abspath(local_path(address))  # noqa: PTH100 - absolute() keeps "a/../b"
    if not address.endswith("/"):
        if Path(path).is_dir():
            raise UsageError(f"{shown(address)}: is a folder; write {shown(address)}/ to read all files in it")
        yield _local_file(path)
        return
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"{shown(address)}: no such folder; check the name")
    for found in sorted(folder.rglob("*")):
        if found.is_file() and _counts(str(found.relative_to(folder))):
            yield _local_file(str(found))


def _local_file(path: str) -> StoredFile:
    size = file_size(path)
    modified_ns = Path(path).stat().st_mtime_ns
    return StoredFile(path, path, shown(path), size, modified_ns // 1_000_000, str(modified_ns))


def _counts(relative: str) -> bool:
    return not any(part.startswith(("_", ".")) for part in relative.split("/"))


def _stored(place: _Place, info: Any) -> StoredFile:
    if info.size == 0:
        raise UsageError(f"{place.name}: is empty; an interrupted upload? Upload it again")
    modified_ns = info.mtime_ns or 0
    with _translated(place.name), _filesystem(place.scheme, place.options).open_input_stream(place.path) as stream:
        about = {key.lower(): value for key, value in (stream.metadata() or {}).items()}
    etag = about.get("etag", b"").decode(errors="replace")
    return StoredFile(
        place.address, place.path, place.name, info.size, modified_ns // 1_000_000, etag or str(modified_ns)
    )


def _place(address: str) -> _Place | None:
    scheme, separator, rest = address.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _OPTIONS:
        return None
    path, _, query = rest.partition("?")
    name = shown(f"{scheme}://{path}")
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError:
        raise UsageError(f"{name}: options are written ?name=value&name=value") from None
    for option in options:
        if option not in _OPTIONS[scheme]:
            known = ", ".join(_OPTIONS[scheme])
            raise UsageError(f"{name}: {scheme}:// has no option {option!a}; there are: {known}")
    bucket, _, key = path.partition("/")
    if not bucket or not (key.strip("/") or path.endswith("/")):
        raise UsageError(f"{name}: write {scheme}://bucket/key, or {scheme}://bucket/folder/ for all files in it")
    return _Place(scheme, path, tuple(sorted(options.items())))


@cache
def _filesystem(scheme: str, options: tuple[tuple[str, str], ...]) -> Any:
    """The file system of a store; one a process and set of options, as each has its own connections."""
    by_name = dict(options)
    arguments: dict[str, Any] = {}
    if "anonymous" in by_name:
        if by_name["anonymous"] not in ("true", "false"):
            raise UsageError(f"{scheme}://: option anonymous is true or false")
        arguments["anonymous"] = by_name["anonymous"] == "true"
    if endpoint := by_name.get("endpoint"):
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
            raise UsageError(f"{scheme}://: option endpoint is written http://host:port")
        arguments |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
    if scheme == "gs":
        return pafs.GcsFileSystem(retry_time_limit=_GCS_PATIENCE, **arguments)
    if region := by_name.get("region"):
        arguments["region"] = region
    return pafs.S3FileSystem(
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        **arguments,
    )


@contextmanager
def _translated(name: str, *, only_stores: bool = False) -> Generator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(_absent(name)) from None
    except PermissionError:
        raise UsageError(f"{name}: may not be read; check its permissions") from None
    except OSError as error:
        text = " ".join(str(error).split())
        code = _AWS_CODE.search(text)
        of_store = code is not None or name.startswith(("s3://", "gs://"))
        if only_stores and error.errno is None and code is None:
            raise
        if any(mark in text for mark in _REFUSED):
            raise UsageError(
                f"{name}: the credentials in use are refused; check them and the bucket's policy"
            ) from None
        if any(mark in text for mark in _NO_CREDENTIALS):
            raise UsageError(f"{name}: no credentials; set them, or ?anonymous=true for a public bucket") from None
        if "No such file or directory" in text or (code is not None and code[1] in ("NO_SUCH_BUCKET", "NO_SUCH_KEY")):
            raise UsageError(_absent(name)) from None
        what = "is out of reach" if of_store else "cannot be read"
        raise BackendUnavailableError(f"{name}: {what}: {text[:200]}") from None


def _absent(name: str) -> str:
    if name.startswith(("s3://", "gs://")):
        return f"{name}: no such bucket or object; check bucket, key and region"
    return f"{name}: no such file; check the name"
