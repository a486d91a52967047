"""Feature flags: whether a worker runs, and for which share of users (Unleash).

The toggle of a worker is ``fan-identity.<worker>``. Switched off it stops the worker; its strategies say for which
users it works, a gradual rollout by ``userId`` being sticky: a user who is in stays in while the share grows.
Source: https://docs.getunleash.io/reference/activation-strategies
"""

import hashlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from .addresses import check_options, int_option, parse_address
from .errors import UsageError
from .last_known_flags import LastKnownFlags

TOKEN_ENV: Final = "FAN_IDENTITY_UNLEASH_TOKEN"  # noqa: S105 - the variable's name
TOGGLE_PREFIX: Final = "fan-identity."

_SCHEME_PREFIX: Final = "unleash+"
_REQUEST_SECONDS: Final = 3
_METRICS_SECONDS: Final = 60
_WARN_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class Flags(Protocol):
    """Flags of workers; never raises, never waits for a server after the first question."""

    def is_enabled(self, worker: str) -> bool:
        """Whether the worker is to run at all."""
        ...

    def includes(self, worker: str, global_user_id: str) -> bool:
        """Whether it is to work for this user; the same answer for a user as long as the flag stays."""
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


@dataclass(frozen=True)
class UnleashFlags:
    """Flags of an Unleash server. Pickles as text; one client a process, made at the first question.

    In an outage the last known flags hold, from memory or from ``cache_folder``; where none were ever known, and for a
    toggle the server does not know, ``default`` does.

    Attributes:
        url: of the server's API, ``http://host:4242/api``.
        environment: told to strategies as context; which environment's flags apply the token decides.
        refresh_seconds: between two looks at the server.
        cache_folder: keeps the last known flags over restarts, or None.
        default: where nothing is known.
    """

    url: str
    environment: str = "default"
    refresh_seconds: int = 1
    cache_folder: str | None = None
    default: bool = True

    @classmethod
    def of(
        cls, text: str, setting: str = "flags", *, cache_folder: Path | None = None, default: bool = True
    ) -> "UnleashFlags":
        """The flags of an address ``unleash+http://host:4242/api?environment=production``.

        The token comes from ``FAN_IDENTITY_UNLEASH_TOKEN``.

        Args:
            text: the address; options are ``environment`` and ``refresh`` (seconds).
            setting: where it came from, for errors.
            cache_folder: made if it is not there.
            default: see the class.

        Raises:
            UsageError: no such address, an unknown option, or no token.
        """
        if not text.lower().startswith((f"{_SCHEME_PREFIX}http://", f"{_SCHEME_PREFIX}https://")):
            raise UsageError(f"--{setting}: write unleash+https://host/api?environment=production")
        address = parse_address(text[len(_SCHEME_PREFIX) :], setting)
        check_options(address, setting, {"environment", "refresh"})
        if not _is_host_and_path(address.target):
            raise UsageError(f"--{setting}: write unleash+https://host/api; the token comes from {TOKEN_ENV}")
        token = _token()
        if not token or not token.isascii() or not token.isprintable():
            raise UsageError(f"{TOKEN_ENV}: set it to a backend token of the Unleash server --{setting} names")
        return cls(
            url=f"{address.scheme}://{address.target.rstrip('/')}",
            environment=address.options.get("environment", "default"),
            refresh_seconds=int_option(address, setting, "refresh", 1, least=1),
            cache_folder=None if cache_folder is None else str(cache_folder),
            default=default,
        )

    def is_enabled(self, worker: str) -> bool:
        """Whether the worker's toggle is switched on, be it for a share of users only."""
        return self._client().is_enabled(TOGGLE_PREFIX + worker, default=self.default)

    def includes(self, worker: str, global_user_id: str) -> bool:
        """Whether the toggle is on for this user."""
        return self._client().includes(TOGGLE_PREFIX + worker, global_user_id, default=self.default)

    def close(self) -> None:
        """Ends this process's client; the next question makes another."""
        with _lock:
            client = _clients.pop((os.getpid(), self), None)
        if client is not None:
            client.close()

    def _client(self) -> "_Client":
        key = os.getpid(), self
        client = _clients.get(key)
        if client is None:
            with _lock:
                client = _clients.get(key)
                if client is None:
                    client = _clients[key] = _Client(self)
        return client


_lock = threading.Lock()
_clients: Final[dict[tuple[int, UnleashFlags], "_Client"]] = {}


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent's may have held it
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


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


class _Client:
    """UnleashClient with a cache of ours."""

    def __init__(self, flags: UnleashFlags) -> None:
        from UnleashClient.clients.unleash_client import UnleashClient  # noqa: PLC0415 - costs where no flag server is
        from UnleashClient.utils import InstanceAllowType  # noqa: PLC0415

        _quiet_unleash()
        token = _token()
        self.cache = LastKnownFlags(_cache_file(flags, token))
        make: Any = UnleashClient
        self._client: Any = make(
            url=flags.url,
            app_name="fan-identity",
            environment=flags.environment,
            instance_id=f"fan-identity-{os.getpid()}",
            refresh_interval=flags.refresh_seconds,
            metrics_interval=_METRICS_SECONDS,
            request_timeout=_REQUEST_SECONDS,
            request_retries=0,  # the next refresh is the retry
            custom_headers={"Authorization": token},
            cache=self.cache,
            multiple_instance_mode=InstanceAllowType.SILENTLY_ALLOW,
        )
        try:
            self._client.initialize_client()
        except Exception as error:  # whatever it is, flags are no reason to stop
            _log.warning("the flag client did not start (%s); the last known flags are used", type(error).__name__)

    def is_enabled(self, toggle: str, *, default: bool) -> bool:
        enabled = self.cache.enabled.get(toggle)
        if enabled is None:
            return default
        # Unleash shows which toggles are in use; the answer itself is of no use, for want of a user.
        self._client.is_enabled(toggle)
        return enabled

    def includes(self, toggle: str, global_user_id: str, *, default: bool) -> bool:
        """Asks UnleashClient only where the answer depends on the user: a question costs it 0.2 ms."""
        if toggle not in self.cache.for_everyone:
            return default
        answer = self.cache.for_everyone[toggle]
        # A lone surrogate, which is no text, could not be handed over.
        user = global_user_id.encode(errors="replace").decode()
        return bool(self._client.is_enabled(toggle, {"userId": user})) if answer is None else answer

    def close(self) -> None:
        self._client.destroy()


def _cache_file(flags: UnleashFlags, token: str) -> Path | None:
    if flags.cache_folder is None:
        return None
    # Another token may show another environment's flags.
    digest = hashlib.sha256("\0".join((flags.url, flags.environment, token)).encode()).hexdigest()
    return Path(flags.cache_folder) / f"flags-{digest[:16]}.json"


class _OneLine(logging.Handler):
    """Stands for all UnleashClient and its scheduler say: one line of ours, once a minute at most."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said_at = -_WARN_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        del record  # may hold URLs and answers
        now = time.monotonic()
        if now - self._said_at >= _WARN_SECONDS:
            self._said_at = now
            _log.warning("the flag server cannot be asked or refuses the token; the last known flags are used")


def _quiet_unleash() -> None:
    for name in ("UnleashClient", "apscheduler", "yggdrasil_engine"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        if not any(isinstance(handler, _OneLine) for handler in logger.handlers):
            logger.addHandler(_OneLine() if name == "UnleashClient" else logging.NullHandler())
