"""Feature flags: whether a worker runs, and for which share of users (Unleash).

The toggle of a worker is ``fan-identity.<worker>``. Switched off it stops the worker; its strategies say for which
users it works, a gradual rollout by ``userId`` being sticky: a user who is in stays in while the share grows.
Source: https://docs.getunleash.io/reference/activation-strategies
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from .addresses import Address, check_options, parse_address
from .durations import duration
from .errors import UsageError
from .last_known_flags import TOGGLE_PREFIX

if TYPE_CHECKING:
    from .flag_client import FlagClient

TOKEN_ENV: Final = "FAN_IDENTITY_UNLEASH_TOKEN"  # noqa: S105 - the variable's name
REFRESH_SECONDS: Final = 0.5
"""Between two looks at the server. A server tells of a switch up to a second late; both together stay under 2 s."""

_SCHEME_PREFIX: Final = "unleash+"
_LEAST_REFRESH_SECONDS: Final = 0.1


class Flags(Protocol):
    """Flags of workers; never raises, never waits for a server after the first question."""

    def is_enabled(self, worker: str) -> bool:
        """Whether the worker is to run at all."""
        ...

    def includes(self, worker: str, global_user_id: str) -> bool:
        """Whether this user is in its share, be it switched on or off; the same answer as long as the share stays.

        What was taken up before the worker was switched off ends, and is not dropped: who takes up work asks
        ``is_enabled`` first.
        """
        ...

    def look(self) -> None:
        """Asks the server now, where the last look is long ago: for a process that was frozen in between (Lambda)."""
        ...


@dataclass(frozen=True)
class StaticFlags:
    """Flags where no flag server is: every worker runs for every user, or none."""

    enabled: bool = True

    def is_enabled(self, worker: str) -> bool:
        """The same for each worker."""
        del worker
        return self.enabled

    def includes(self, worker: str, global_user_id: str) -> bool:
        """The same for each user."""
        del worker, global_user_id
        return self.enabled

    def look(self) -> None:
        """Nothing: they stay as they are."""


@dataclass(frozen=True)
class UnleashFlags:
    """Flags of an Unleash server. Pickles as text; one client a process, made at the first question.

    In an outage the last known flags hold, from memory or from ``cache_folder``; where none were ever known, and for a
    toggle the server does not know, ``default`` does: for whether a worker runs. Everyone is in such a toggle's share.

    Attributes:
        url: of the server's API, ``http://host:4242/api``.
        environment: told to strategies as context; which environment's flags apply the token decides.
        refresh_seconds: between two looks at the server.
        cache_folder: keeps the last known flags over restarts, or None.
        default: whether workers run where nothing is known.
        prefix: of our toggles' names, so that several installations can share a server's project.
    """

    url: str
    environment: str = "default"
    refresh_seconds: float = REFRESH_SECONDS
    cache_folder: str | None = None
    default: bool = True
    prefix: str = TOGGLE_PREFIX

    @classmethod
    def of(
        cls, text: str, setting: str = "flags", *, cache_folder: Path | None = None, default: bool = True
    ) -> "UnleashFlags":
        """The flags of an address ``unleash+http://host:4242/api?environment=production``.

        The token comes from ``FAN_IDENTITY_UNLEASH_TOKEN``.

        Args:
            text: the address; options are ``environment``, ``refresh`` (``500ms``, ``2s`` or seconds) and ``prefix``.
            setting: where it came from, for errors.
            cache_folder: made if it is not there.
            default: see the class.

        Raises:
            UsageError: no such address, an unknown option, or no token.
        """
        if not text.lower().startswith((f"{_SCHEME_PREFIX}http://", f"{_SCHEME_PREFIX}https://")):
            raise UsageError(f"--{setting}: write unleash+https://host/api?environment=production")
        address = parse_address(text[len(_SCHEME_PREFIX) :], setting)
        check_options(address, setting, {"environment", "refresh", "prefix"})
        if not _is_host_and_path(address.target):
            raise UsageError(f"--{setting}: write unleash+https://host/api; the token comes from {TOKEN_ENV}")
        token = _token()
        if not token or not token.isascii() or not token.isprintable():
            raise UsageError(f"{TOKEN_ENV}: set it to a backend token of the Unleash server --{setting} names")
        return cls(
            url=f"{address.scheme}://{address.target.rstrip('/')}",
            environment=address.options.get("environment", "default"),
            refresh_seconds=_refresh(address, setting),
            cache_folder=None if cache_folder is None else str(cache_folder),
            default=default,
            prefix=address.options.get("prefix", TOGGLE_PREFIX),
        )

    def is_enabled(self, worker: str) -> bool:
        """Whether the worker's toggle is switched on, be it for a share of users only."""
        return self._client().is_enabled(self.prefix + worker)

    def includes(self, worker: str, global_user_id: str) -> bool:
        """Whether this user is in the toggle's share, be it switched on or off."""
        return self._client().includes(self.prefix + worker, global_user_id)

    def known(self, worker: str) -> tuple[bool, bool | None] | None:
        """What the server told last of a worker's toggle; see ``FlagClient.known``."""
        return self._client().known(self.prefix + worker)

    def look(self) -> None:
        """As ``Flags.look``: waits a second at most, and asks no more often than every ``refresh_seconds``."""
        self._client().look()

    def close(self) -> None:
        """Ends this process's client; the next question makes another."""
        with _lock:
            client = _clients.pop((os.getpid(), self), None)
        if client is not None:
            client.close()

    def _client(self) -> "FlagClient":
        key = os.getpid(), self
        client = _clients.get(key)
        if client is None:
            with _lock:
                client = _clients.get(key)
                if client is None:
                    from .flag_client import FlagClient  # noqa: PLC0415 - costs where no flag server is

                    client = _clients[key] = FlagClient(self, _token())
        return client


_lock = threading.Lock()
_clients: Final[dict[tuple[int, UnleashFlags], "FlagClient"]] = {}


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent's may have held it
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _refresh(address: Address, setting: str) -> float:
    text = address.options.get("refresh")
    if text is None:
        return REFRESH_SECONDS
    try:
        seconds = float(text) if text.isdigit() and text.isascii() else duration(text).total_seconds()
    except ValueError:
        seconds = 0.0
    if seconds < _LEAST_REFRESH_SECONDS:
        raise UsageError(f"--{setting}: refresh is a time such as 500ms or 2s, at least {_LEAST_REFRESH_SECONDS} s")
    return seconds


def _is_host_and_path(target: str) -> bool:
    try:
        parts = urlsplit(f"//{target}")
        port = parts.port
    except ValueError:
        return False
    del port  # read to be checked
    plain = target.isascii() and target.isprintable() and " " not in target
    return plain and bool(parts.hostname) and parts.username is None


def _token() -> str:
    return os.environ.get(TOKEN_ENV, "").strip()
