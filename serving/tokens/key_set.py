"""The issuer's keys: kept for a while, renewed when they age or rotate, and used on while the issuer is away.

Who needs a key asks ``flight`` first, waits for what it returns, then calls ``find``. Keys that are known and fresh
need no waiting, whatever else is going on.
"""

import http.client
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from ...io.errors import UnavailableError
from .jwks import KeyId, SigningKey, read_jwks
from .key_document import KeyDocument
from .problems import TokenError, TokenProblem

RENEW_SECONDS: Final = 240.0
"""From this age on keys are renewed in the background, so that nobody waits where there is traffic."""

FRESH_SECONDS: Final = 300.0
"""Older keys are used only once the issuer was asked in vain."""

STALE_SECONDS: Final = 3_600.0
"""Keys this old are not used any more: the issuer may have withdrawn them while it was away."""

PAUSE_SECONDS: Final = 30.0
"""Between two questions to the issuer, whoever asks for whatever key."""

FIRST_PAUSE_SECONDS: Final = 5.0
"""The same while no keys were ever had: until then nobody can be let in."""

_log = logging.getLogger("fan_identity.tokens")

Flight = Future[None]
"""A question to the issuer under way; ends without error, whatever came of it."""


@dataclass(frozen=True)
class _Keys:
    """What one answer of the issuer held.

    Attributes:
        fetched_at: when it was asked for, in seconds of the clock; None where it never was.
        generation: greater where a key that was known before is gone or another one.
    """

    keys: Mapping[KeyId, SigningKey] = field(default_factory=dict[KeyId, SigningKey])
    fetched_at: float | None = None
    generation: int = 0


class KeySet:
    """The keys of one issuer, for one process; safe to use from several threads.

    Args:
        document: where the keys are.
        algorithms: signatures taken.
        clock: seconds since 1970: a clock that goes on while a Lambda is frozen.
    """

    def __init__(self, document: KeyDocument, algorithms: tuple[str, ...], clock: Callable[[], float]) -> None:
        self._document = document
        self._algorithms = algorithms
        self._clock = clock
        self._lock = threading.Lock()
        self._now = _Keys()
        self._flight: Flight | None = None
        self._asked_at: float | None = None
        self._failed = False

    @property
    def generation(self) -> int:
        """Changes when a key is withdrawn or replaced; what was verified before is then to be verified again."""
        return self._now.generation

    @property
    def usable_until(self) -> float:
        """The time from which on today's keys are not used any more."""
        fetched_at = self._now.fetched_at
        return 0.0 if fetched_at is None else fetched_at + STALE_SECONDS

    def flight(self, key_id: KeyId) -> Flight | None:
        """Asks the issuer where that is due; what to wait for before ``find``, or None."""
        now, keys = self._clock(), self._now
        age = _age(keys.fetched_at, now)
        if key_id in keys.keys:
            if age < RENEW_SECONDS:
                return None
            if age < FRESH_SECONDS or (self._failed and age < STALE_SECONDS):
                self._start(now)
                return None
        return self._start(now)

    def renewal(self) -> Flight | None:
        """Asks the issuer where keys were never had or have aged; what to wait for, or None."""
        now = self._clock()
        return None if _age(self._now.fetched_at, now) < RENEW_SECONDS else self._start(now)

    def find(self, key_id: KeyId) -> SigningKey:
        """The key of that id, bound to that algorithm.

        Raises:
            TokenError: UNKNOWN_KEY.
            UnavailableError: no keys are known that may still be used.
        """
        keys = self._now
        if _age(keys.fetched_at, self._clock()) >= STALE_SECONDS:
            raise UnavailableError("jwks", "the issuer's keys cannot be had")
        key = keys.keys.get(key_id)
        if key is None:
            raise TokenError(TokenProblem.UNKNOWN_KEY)
        return key

    def _start(self, now: float) -> Flight | None:
        """The question under way, or a new one; None where the last one is not long enough ago."""
        with self._lock:
            if self._flight is not None:
                return self._flight
            pause = FIRST_PAUSE_SECONDS if self._now.fetched_at is None else PAUSE_SECONDS
            if _age(self._asked_at, now) < pause:
                return None
            self._asked_at = now
            flight = self._flight = Flight()
        # A daemon: a program that ends does not wait for the issuer.
        threading.Thread(target=self._fetch, args=(flight, now), name="jwks", daemon=True).start()
        return flight

    def _fetch(self, flight: Flight, now: float) -> None:
        try:
            keys = read_jwks(self._document.read(), self._algorithms)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._failed = True
            # Its kind alone: the text may quote what the other side sent.
            _log.warning("the issuer's keys cannot be had", extra={"error": type(error).__name__})
        else:
            self._take(keys, now)
        finally:
            with self._lock:
                self._flight = None
            flight.set_result(None)

    def _take(self, found: Mapping[KeyId, SigningKey], now: float) -> None:
        old = self._now
        kept = {
            key_id: known if (known := old.keys.get(key_id)) and known.material == key.material else key
            for key_id, key in found.items()
        }
        withdrawn = any(kept.get(key_id) is not key for key_id, key in old.keys.items())
        self._now = _Keys(kept, now, old.generation + withdrawn)
        self._failed = False
        if not kept:
            _log.warning("the issuer's keys hold none that can be used")


def _age(since: float | None, now: float) -> float:
    """Seconds since then; endless where it never was, or lies ahead because the clock was set back."""
    return float("inf") if since is None or since > now else now - since
