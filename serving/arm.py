"""The ARM lookup: a fan's account risk from the cache; while that is away, from the table, marked.

What a caller gets, in every case: a score, None for a fan nobody has scored, or an error. None never stands for "could
not be asked", and an entry that cannot be used is an error, not an unknown fan.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec

from ..domain.keys import LATEST_SK, arm_cache_key, user_pk
from ..io.arm_reads import ArmReads, open_arm_reads
from ..io.breaker import Admission, Breaker
from ..io.errors import FanIdentityError, UnavailableError, UsageError
from ..io.telemetry.metrics import lookups, observe_lookup, switch
from ..io.telemetry.tracing import link_current
from .data_sources import ArmScore, AsyncTable

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_SOURCE: Final = "arm"
_FAILURES_TO_OPEN: Final = 5
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 2.0
_TABLE_READS_AT_ONCE: Final = 16
_HIT: Final = lookups["arm", "hit"]
_MISS: Final = lookups["arm", "miss"]

_log = logging.getLogger(__name__)

_Risk = Annotated[int, msgspec.Meta(ge=1, le=5)]


class _CacheAwayError(Exception):
    """The cache gave no answer, or is not asked for now."""


class _Entry(msgspec.Struct, frozen=True, gc=False, rename={"model_version": "modelVersion"}):
    """An entry of the cache (``domain.scores.cache_entry``); what is not read here may be of any type."""

    arm_risk: _Risk
    global_user_id: str | None = None
    timestamp: Any = None
    model_version: Any = None
    traceparent: Any = None


_decode: Final = msgspec.json.Decoder(_Entry).decode


class ArmLookup:
    """Implements ``data_sources.ArmScores`` over the cache and the declared fallback. For one event loop.

    Args:
        cache: the cache.
        table: gives the table with the fans' ``LATEST`` items when first needed; None for no fallback.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        cache: ArmReads,
        table: Callable[[], AsyncTable] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._table = table
        self._breaker = Breaker(
            clock,
            failures_to_open=_FAILURES_TO_OPEN,
            first_pause=_FIRST_PAUSE_SECONDS,
            longest_pause=_LONGEST_PAUSE_SECONDS,
            service=_SOURCE,
        )

    @classmethod
    def of(
        cls, cache: str | None, store: str | None, *, deadline_seconds: float, table: Callable[[], AsyncTable] | None
    ) -> "ArmLookup":
        """The lookup of addresses.

        Args:
            cache: setting ``cache``.
            store: setting ``store``, which has the cache where ``cache`` is not set.
            deadline_seconds: what a lookup waits for the cache at most.
            table: gives the fallback's table when first needed; None for no fallback.

        Raises:
            UsageError: neither is set, or it is no address of a cache.
        """
        address = cache or store
        if address is None:
            raise UsageError("--cache: an address is needed, such as redis://host/0 (or --store sqlite:///fans.db)")
        return cls(open_arm_reads(address, "cache" if cache else "store", deadline_seconds), table)

    async def get(self, global_user_id: str) -> ArmScore | None:
        """A fan's account risk; None for an unknown fan.

        Raises:
            UnavailableError: ``arm``: the cache is away and there is no fallback or it is away too, or the entry
                cannot be used.
        """
        try:
            entry = await self._from_cache(self._cache.get, arm_cache_key(global_user_id))
        except _CacheAwayError:
            observe_lookup("arm", "away")
            return await self._from_table(global_user_id)
        if switch.on:
            (_MISS if entry is None else _HIT).add(1)
        return None if entry is None else _score_of_entry(entry, global_user_id)

    async def get_many(self, global_user_ids: Sequence[str]) -> list[ArmScore | None]:
        """Many fans' account risk, in their order; errors as ``get``, the first one for all."""
        scores: list[ArmScore | None] = []
        for one in await self.outcomes(global_user_ids):
            if isinstance(one, UnavailableError):
                raise one
            scores.append(one)
        return scores

    async def outcomes(self, global_user_ids: Sequence[str]) -> list[ArmScore | UnavailableError | None]:
        """As ``get_many``, but with an error of each fan's own in that fan's place."""
        try:
            entries = await self._from_cache(self._cache.get_many, [arm_cache_key(one) for one in global_user_ids])
        except _CacheAwayError:
            slots = asyncio.Semaphore(_TABLE_READS_AT_ONCE)

            async def from_table(global_user_id: str) -> ArmScore | UnavailableError | None:
                async with slots:
                    try:
                        return await self._from_table(global_user_id)
                    except UnavailableError as error:
                        return error

            return list(await asyncio.gather(*map(from_table, global_user_ids)))
        return [_outcome(entry, one) for entry, one in zip(entries, global_user_ids, strict=True)]

    async def check(self) -> None:
        """Asks the cache for an answer, whatever the breaker says.

        Raises:
            UsageError: a setting is wrong.
            BackendUnavailableError: it is out of reach.
        """
        await self._cache.check()

    async def close(self) -> None:
        """Ends the cache's connections."""
        await self._cache.close()

    async def _from_cache(self, read: Callable[[Asked], Awaitable[Answer]], asked: Asked) -> Answer:
        """Asks the cache, unless it is known to be away; then one caller a pause finds out whether it is back.

        Raises:
            _CacheAwayError: it is away.
        """
        admission = self._breaker.admit()
        if admission is not Admission.CALL and admission is not Admission.PROBE:
            raise _CacheAwayError
        probe = admission is Admission.PROBE
        try:
            answer = await read(asked)
        except FanIdentityError as error:
            self._failed(error, probe=probe)
            raise _CacheAwayError from None
        except BaseException:
            if probe:  # whoever asked went away; the next one finds out
                self._breaker.failed(probe=True)
            raise
        self._breaker.succeeded(probe=probe)
        if probe:
            _log.warning("the ARM cache is back")
        return answer

    def _failed(self, error: FanIdentityError, *, probe: bool) -> None:
        was_open = self._breaker.is_open
        self._breaker.failed(probe=probe)
        if self._breaker.is_open and not was_open:
            _log.warning("the ARM cache is away, for now it is not asked: %s", error)

    async def _from_table(self, global_user_id: str) -> ArmScore | None:
        if self._table is None:
            raise UnavailableError(_SOURCE, "the cache is away, and setting arm_fallback is off")
        try:
            item = await self._table().get(user_pk(global_user_id), LATEST_SK)
        except FanIdentityError:
            raise UnavailableError(_SOURCE, "the cache and the table are away") from None
        if item is None:
            return None
        link_current(item.get("traceparent"))
        try:
            risk = msgspec.convert(item.get("armRisk"), _Risk)
        except msgspec.ValidationError:
            raise UnavailableError(_SOURCE, "the fan's latest item has no ARM score") from None
        return ArmScore(risk, _milliseconds(item.get("occurredAt")), _text(item.get("modelVersion")), stale=True)


def _outcome(entry: bytes | None, global_user_id: str) -> ArmScore | UnavailableError | None:
    try:
        return None if entry is None else _score_of_entry(entry, global_user_id)
    except UnavailableError as error:
        return error


def _score_of_entry(entry: bytes, global_user_id: str) -> ArmScore:
    try:
        found = _decode(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnavailableError(_SOURCE, "the cache's entry is no ARM score of 1 to 5") from None
    if found.global_user_id is not None and found.global_user_id != global_user_id:
        raise UnavailableError(_SOURCE, "the cache's entry is another fan's")
    link_current(found.traceparent)
    scored_at = found.timestamp if type(found.timestamp) is int else None
    return ArmScore(found.arm_risk, scored_at, _text(found.model_version))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _milliseconds(value: object) -> int | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def shown(score: ArmScore | None, *, detail: bool) -> dict[str, Any]:
    """A lookup's answer as JSON: ``{armScore}``, with ``stale`` where it is; in detail age and model version too.

    Args:
        score: what was found; None for an unknown fan.
        detail: whether ``ageSeconds`` (since the activity that caused the score) and ``modelVersion`` are wanted.
    """
    if score is None:
        none = {"ageSeconds": None, "modelVersion": None, "stale": False} if detail else {}
        return {"armScore": None, **none}
    if not detail:
        return {"armScore": score.arm_score, "stale": True} if score.stale else {"armScore": score.arm_score}
    return {
        "armScore": score.arm_score,
        "ageSeconds": score.age_seconds(),
        "modelVersion": score.model_version,
        "stale": score.stale,
    }
