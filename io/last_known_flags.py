"""The last flags the server told: in memory, and in a file, so that they outlast an outage and a restart.

What a server, a proxy or the file says is distrusted: whatever is not wholly flags is not taken for some.
"""

import logging
import os
import stat
import uuid
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

TOGGLE_PREFIX: Final = "fan-identity."
MAX_STATE_BYTES: Final = 8 << 20
"""Flags beyond this are refused; a server of a thousand toggles tells about 1 MB."""

_log = logging.getLogger(__name__)


class NotFlagsError(ValueError):
    """What was told is not taken for flags; the message is one line without a word of it."""


class _Strategy(msgspec.Struct):
    name: str
    parameters: dict[str, str] = {}
    constraints: list[Any] = []
    segments: list[Any] = []
    disabled: bool | None = None

    @property
    def is_for_everyone(self) -> bool:
        whole = self.name == "default" or (self.name == "flexibleRollout" and self.parameters.get("rollout") == "100")
        return whole and not (self.constraints or self.segments or self.disabled)


class _Feature(msgspec.Struct):
    name: str
    enabled: bool
    strategies: list[_Strategy] = []
    dependencies: list[Any] = []

    @property
    def for_everyone(self) -> bool | None:
        """Whether everyone is in its share; None where the strategies must be asked."""
        # One strategy that says yes is enough, and where there is none the switch decides.
        whole = not self.strategies or any(strategy.is_for_everyone for strategy in self.strategies)
        return True if whole and not self.dependencies else None


class _State(msgspec.Struct):
    features: list[_Feature]


_state_decoder: Final = msgspec.json.Decoder(_State)

Adopt = Callable[[str, Set[str]], None]
"""Puts flags into use: their text with every toggle of ours switched on, which tells who is in a share be the worker on
or off, and the names of all toggles. What it raises, ``Exception`` of any kind, refuses them."""


def _adopt_all(shares: str, names: Set[str]) -> None:
    del shares, names


class LastKnownFlags:
    """The last flags the server told.

    Args:
        file: made, with its folder, when there is something to keep; None to keep nothing over restarts. Only this
            user may read it (strategies can name fans), and one that others could have written is not read.
        prefix: of the names of our toggles.
        adopt: who uses the flags; what it refuses is neither kept nor written, and such a file is no file.

    Attributes:
        enabled: whether a toggle is switched on, by its name.
        for_everyone: by a toggle's name True where its share is everyone, or None where that depends on the user.
        text: the flags as told, JSON; "" where none are known.
    """

    def __init__(self, file: Path | None, prefix: str = TOGGLE_PREFIX, adopt: Adopt = _adopt_all) -> None:
        self._file = file
        self._prefix = prefix
        self._adopt = adopt
        self._warned = False
        self.text = ""
        self.enabled: dict[str, bool] = {}
        self.for_everyone: dict[str, bool | None] = {}
        if file is not None:
            with suppress(OSError, NotFlagsError):
                self._keep(_read_own(file))

    def take(self, told: bytes) -> None:
        """Takes what a server told for the flags from now on.

        Raises:
            NotFlagsError: it is no flags, is not adopted, or knows none of our toggles where some were known: another
                server's, or those of a token of another project. What was known stays.
        """
        before = self.text
        self._keep(told)
        if self.text != before:
            self._write(told)

    def _keep(self, told: bytes) -> None:
        try:
            text = told.decode()
            state = _state_decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            raise NotFlagsError("its answer is no flags") from None
        enabled = {feature.name: feature.enabled for feature in state.features}
        if self._knows_ours(self.enabled) and not self._knows_ours(enabled):
            raise NotFlagsError(f"it knows none of the toggles {self._prefix}… it knew")
        try:
            self._adopt(self._text_of_shares(text), enabled.keys())
        except Exception:  # of whatever kind; its text may hold the flags
            raise NotFlagsError("its flags cannot be used") from None
        self.text = text
        self.enabled = enabled
        self.for_everyone = {feature.name: feature.for_everyone for feature in state.features}

    def _knows_ours(self, enabled: dict[str, bool]) -> bool:
        return any(name.startswith(self._prefix) for name in enabled)

    def _text_of_shares(self, text: str) -> str:
        state: Any = msgspec.json.decode(text)
        for feature in state["features"]:
            if feature["name"].startswith(self._prefix):
                feature["enabled"] = True
        return msgspec.json.encode(state).decode()

    def _write(self, told: bytes) -> None:
        if self._file is None:
            return
        beside = self._file.with_suffix(f".{uuid.uuid4().hex}")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(told)
            beside.replace(self._file)  # whole or not at all, whoever else writes; a link is replaced, not followed
            self._warned = False
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            if not self._warned:
                _log.warning("the last known flags cannot be kept in a file: %s", error.strerror)
            self._warned = True


def _read_own(path: Path) -> bytes:
    """A file's content, where it is a regular one that nobody but this user (or root) could have written.

    Raises:
        OSError: it cannot be read, or is a link.
        NotFlagsError: it is not to be trusted.
    """
    # Without waiting: opening a pipe would, until somebody writes to it.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        ours = os.name != "posix" or (found.st_uid in (os.geteuid(), 0) and not found.st_mode & 0o022)
        if not stat.S_ISREG(found.st_mode) or not ours or found.st_size > MAX_STATE_BYTES:
            _log.warning(
                "the file of the last known flags is not read: others could have written it, or it is too large"
            )
            raise NotFlagsError("not a file of ours")
        return file.read(MAX_STATE_BYTES)
