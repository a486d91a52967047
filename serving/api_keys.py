"""API keys: random, shown once, stored hashed in a file of one JSON object a line.

``{"name": "box-office", "sha256": "…", "scopes": ["fanscore:read"], "per_minute": 600}``

A key has 256 random bits, so one SHA-256 is enough: a slow hash protects what people can guess.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ..domain.access import CONSOLE_ACT_SCOPE, CONSOLE_READ_SCOPE, READ_ANY_SCOPE, CallerKind, Identity
from ..io.errors import UsageError

KNOWN_SCOPES: Final = (READ_ANY_SCOPE, CONSOLE_READ_SCOPE, CONSOLE_ACT_SCOPE)
"""What a key can be allowed."""

MAX_PER_MINUTE: Final = 1_000_000
KEY_PREFIX: Final = "fik_"
"""What keys begin with, so that scanners for leaked secrets know them."""

_KEY_BYTES: Final = 32
_MAX_KEY_CHARACTERS: Final = 256
_CHECK_SECONDS: Final = 1.0
_OTHERS: Final = 0o007
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SETTING: Final = "setting api_keys"
_log = logging.getLogger("fan_identity.api_keys")


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key as it is stored.

    Attributes:
        name: whom it was given to: letters, digits, ``_``, ``.`` and ``-``, 64 at most.
        sha256: of the key, in hexadecimal.
        scopes: what it allows.
        per_minute: how many requests a minute, by their cost.
    """

    name: Annotated[str, msgspec.Meta(pattern=rf"^{_NAME.pattern}\Z")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: frozenset[Annotated[str, msgspec.Meta(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,100}\Z")]]
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=MAX_PER_MINUTE)]

    @property
    def identity(self) -> Identity:
        """The caller who shows this key."""
        return Identity(CallerKind.API_KEY, self.name, scopes=self.scopes)


class ApiKeys:
    """The keys of a file, read again once it changes; one a process.

    Where a changed file cannot be used, the keys known before stay valid and the log says so: half an edit must not
    lock everybody out. A service that is started with such a file does not start.

    Args:
        path: of the file.
        clock: seconds; the file is looked at once a second.

    Raises:
        UsageError: the file cannot be read, is open to others, or a line is wrong.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._state = _state_of(path)
        self._keys = _with_digests(read_keys(path))

    def find(self, shown: str) -> ApiKey | None:
        """The key that a caller shows, or None.

        Takes the same time for whatever is shown in the same length: its SHA-256 is compared with that of every key
        there is, each in constant time.
        """
        self._renew()
        if len(shown) > _MAX_KEY_CHARACTERS:
            return None
        digest = hashlib.sha256(shown.encode(errors="surrogatepass")).digest()
        found: ApiKey | None = None
        for known, key in self._keys:
            if hmac.compare_digest(digest, known):
                found = key
        return found

    def named(self, name: str) -> ApiKey | None:
        """The key of that name, or None where it was revoked."""
        return next((key for _, key in self._keys if key.name == name), None)

    def _renew(self) -> None:
        now = self._clock()
        if now - self._looked_at < _CHECK_SECONDS:
            return
        self._looked_at = now
        state = _state_of(self._path)
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = _with_digests(read_keys(self._path))
        except UsageError as error:
            _log.error(
                "the changed API keys cannot be used; those known before stay valid", extra={"error": str(error)}
            )


def _with_digests(keys: Sequence[ApiKey]) -> list[tuple[bytes, ApiKey]]:
    return [(bytes.fromhex(key.sha256), key) for key in keys]


def _state_of(path: Path) -> tuple[int, ...] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino, state.st_mode


def read_keys(path: Path) -> list[ApiKey]:
    """The keys of a file, in its order.

    Raises:
        UsageError: it cannot be read, is open to others, or a line is wrong: the error names it and what to do, never
            what stands there.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read().splitlines()
    except OSError as error:
        raise UsageError(f"{_SETTING}: {path}: cannot be read: {error.strerror}") from None
    if mode & _OTHERS:
        raise UsageError(f"{_SETTING}: {path}: other users may use this file; take that away with chmod o= {path}")
    keys: list[ApiKey] = []
    names: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key = _read_line(line, f"{_SETTING}: {path}: line {number}")
        if key.name in names:
            raise UsageError(f"{_SETTING}: {path}: line {number}: a key of this name stands above; remove one")
        names.add(key.name)
        keys.append(key)
    return keys


def _read_line(line: bytes, where: str) -> ApiKey:
    try:
        return msgspec.json.decode(line, type=ApiKey)
    except (ValueError, RecursionError) as error:
        # Of msgspec's message only the field's name: the line holds a hash, or a key that was put there by mistake.
        field = re.search(r"`\$\.(name|sha256|scopes|per_minute)", str(error))
        what = f"field {field[1]} is wrong" if field else "no JSON object with name, sha256, scopes and per_minute"
        raise UsageError(f"{where}: {what}; make keys with: fan-identity api-keys create") from None


def create_key(path: Path, name: str, scopes: Sequence[str], per_minute: int) -> str:
    """Makes a key and adds it to a file, which is made where there is none.

    Args:
        path: of the file.
        name: whom it is for.
        scopes: of ``KNOWN_SCOPES``.
        per_minute: how many requests a minute, by their cost.

    Returns:
        The key, which is stored nowhere.

    Raises:
        UsageError: name, scope or number do not fit, the name is taken, or the file cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise UsageError("NAME: letters, digits, _ . and -, 64 at most, beginning with a letter or digit")
    for scope in scopes:
        if scope not in KNOWN_SCOPES:
            raise UsageError(f"--scope: there is no such scope; there are: {', '.join(KNOWN_SCOPES)}")
    if not 1 <= per_minute <= MAX_PER_MINUTE:
        raise UsageError(f"--per-minute: a whole number from 1 to {MAX_PER_MINUTE:,}")
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    with _changing(path) as keys:
        if any(known.name == name for known in keys):
            raise UsageError(f"{_SETTING}: {path}: there is a key of this name; revoke it first, or take another name")
        keys.append(ApiKey(name, hashlib.sha256(key.encode()).hexdigest(), frozenset(scopes), per_minute))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Takes a key out of a file; running services notice within a second.

    Raises:
        UsageError: there is no key of that name, or the file cannot be used.
    """
    with _changing(path) as keys:
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            raise UsageError(f"{_SETTING}: {path}: there is no key of this name; fan-identity api-keys list shows them")
        keys[:] = kept


@contextmanager
def _changing(path: Path) -> Generator[list[ApiKey]]:
    """The file's keys, to be changed; written in one step, by one process at a time."""
    import fcntl  # noqa: PLC0415 - only those who change the file; it is not on Windows

    try:
        with path.with_name(path.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = read_keys(path) if path.exists() else []
            yield keys
            _write(path, keys)
    except OSError as error:
        raise UsageError(f"{_SETTING}: {path}: cannot be written: {error.strerror}") from None


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    target = path.resolve()  # a link stays one
    lines = b"".join(msgspec.json.encode(key, order="sorted") + b"\n" for key in keys)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".api-keys-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            Path(temporary).chmod(target.stat().st_mode & 0o777)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
