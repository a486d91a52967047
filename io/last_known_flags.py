"""What UnleashClient keeps its flags in, so that they outlast an outage of the server and a restart.

It has the methods of UnleashClient's ``BaseCache``. Of that library's own caches the one in a file pickles, which a
folder others can write to must not, and takes whatever a proxy answers for flags; this one keeps what it has.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

_STATE: Final = "/client/features"  # the key under which UnleashClient keeps what it fetched
_ETAG: Final = "etag"

_log = logging.getLogger(__name__)


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
        """The answer where it is the same for every user; None where the strategies must be asked."""
        if not self.enabled:
            return False
        # One strategy that says yes is enough, and where there is none the switch decides.
        whole = not self.strategies or any(strategy.is_for_everyone for strategy in self.strategies)
        return True if whole and not self.dependencies else None


class _State(msgspec.Struct):
    features: list[_Feature]


_state_decoder: Final = msgspec.json.Decoder(_State)


class LastKnownFlags:
    """The last flags the server told: in memory, and in a file.

    Args:
        file: made, with its folder, when there is something to keep; None to keep nothing over restarts.

    Attributes:
        enabled: whether a toggle is switched on, by its name.
        for_everyone: by a toggle's name the answer for any user, or None where it depends on the user.
        bootstrapped: whether the file held flags.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._values: dict[str, Any] = {}
        self.enabled: dict[str, bool] = {}
        self.for_everyone: dict[str, bool | None] = {}
        self.bootstrapped = False
        self._takes_etag = True
        if file is not None:
            with suppress(OSError, UnicodeDecodeError):
                self.bootstrapped = self._take(file.read_text("utf-8"))

    def _take(self, text: str) -> bool:
        """Keeps the flags a text holds; False where it holds none."""
        try:
            state = _state_decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return False
        self._values[_STATE] = text
        self.enabled = {feature.name: feature.enabled for feature in state.features}
        self.for_everyone = {feature.name: feature.for_everyone for feature in state.features}
        return True

    def set(self, key: str, value: Any) -> None:
        """Keeps a value; what are no flags is not taken for some, nor its ETag."""
        if key == _STATE:
            self._takes_etag = self._take(value)
            if self._takes_etag:
                self._write(value)
        elif key != _ETAG or self._takes_etag:
            self._values[key] = value

    def _write(self, text: str) -> None:
        if self._file is None:
            return
        beside = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.write_text(text, "utf-8")
            beside.replace(self._file)  # whole or not at all, whoever else writes
        except OSError as error:
            _log.warning("the last known flags cannot be kept in a file: %s", error.strerror)
            self._file = None

    def mset(self, data: dict[str, Any]) -> None:
        """Keeps several values."""
        for key, value in data.items():
            self.set(key, value)

    def get(self, key: str, default: Any = None) -> Any:
        """A value, or the default."""
        return self._values.get(key, default)

    def exists(self, key: str) -> bool:
        """Whether there is a value."""
        return key in self._values

    def destroy(self) -> None:
        """Nothing: what was known last is for the next process."""
