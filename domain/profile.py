"""A user's account-activity profile: what the embedded model sees of a user, as of one activity.

A profile looks at the user's last ``PROFILE_WINDOW`` activities up to and including the activity it is for, and at
nothing else: never at the user agent, never at what came later. Its statistics are integers that an activity is
added to and removed from, so a profile does not depend on where a sweep over the history began.

*Asset loads* (``assetView``: the images and scripts a browser fetches by itself) are no decision of the user's. They
are counted, but rates, gaps and repetitions look at the other activities only, here called *decisions*.
"""

import hashlib
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from .activity import ACTIVITY_TYPES, TYPE_INDEX, Activity

PROFILE_WINDOW = 1_000
"""A profile looks at this many activities at most, so a hostile user cannot make one costly."""

MIN_ACTIVITIES = 3
"""Shares of fewer activities are None: one of two is no half."""

MIN_GAPS = 2
"""Statistics of fewer gaps between decisions are None."""

MIN_RHYTHM_GAPS = 5
"""``gapRegularity`` of fewer gaps is None."""

FEATURES: tuple[str, ...] = (
    "activityCount",
    "activitiesPerMinute",
    "lastMinuteCount",
    "lastTenMinutesCount",
    "gapRegularity",
    "fastGapShare",
    "sessionBreakShare",
    "distinctAddresses",
    "distinctDevices",
    "distinctEvents",
    "failureShare",
    "loginShare",
    "searchShare",
    "purchaseShare",
    "assetShare",
    "typeVariety",
    "distinctHoursOfDay",
    "sameTypeRepeatShare",
    "nightShare",
)
"""Names of ``Profile.values``, in order. ``docs/model-card.md`` says what each means."""

_MINUTE_MS = 60_000
_FAST_GAP_MS = 1_000
_RHYTHM_GAP_MS = 2_000  # shorter gaps are a page loading or a double click; logs in whole seconds blur them besides
_SESSION_BREAK_MS = 30 * _MINUTE_MS
_HOUR_MS = 60 * _MINUTE_MS
_NIGHT_ENDS = 6  # night is from midnight to 6:00 UTC
_MILLE = 1_000  # shares and rates are cut to three decimals, in integer arithmetic

_ASSET_VIEW = TYPE_INDEX["assetView"]
_LOGIN = TYPE_INDEX["login"]
_SEARCH = TYPE_INDEX["search"]
_PURCHASE_STEPS = (TYPE_INDEX["addToCart"], TYPE_INDEX["checkout"], TYPE_INDEX["purchase"])
_GAP_BUCKETS = 200  # the longest gap, 9,999 years in milliseconds, has 49 bits: bucket 49 * 4 + 3


class ActivityFacts(NamedTuple):
    """What is kept of an activity for profiles: 64-bit hashes instead of personal data.

    Attributes:
        time_ms: when it happened, epoch milliseconds.
        activity_id: orders activities of one millisecond.
        type_index: its place in ``ACTIVITY_TYPES``.
        address: signed 64-bit hash of the IP address, 0 where unknown.
        device: signed 64-bit hash of the device id, 0 where unknown.
        event: signed 64-bit hash of the event id, 0 where unknown.
        failed: 1 for a failed login, payment or request, else 0.
    """

    time_ms: int
    activity_id: str
    type_index: int
    address: int
    device: int
    event: int
    failed: int


class Profile(msgspec.Struct, frozen=True, gc=False):
    """A user's profile as of one activity.

    Attributes:
        as_of_ms: the activity's time, epoch milliseconds.
        values: aligned to ``FEATURES``; None where too few activities are known to say. Counts are int; shares and
            rates are float, cut to three decimals.
    """

    as_of_ms: int
    values: tuple[float | None, ...]


def facts_of(activity: Activity, time_ms: int) -> ActivityFacts:
    """Reduces an activity to what profiles need.

    Args:
        activity: of a scorable type.
        time_ms: its ``activity.time_ms``, passed because reading it costs a parse.

    Raises:
        KeyError: the activity's type is not in ``ACTIVITY_TYPES``.
    """
    context = activity.context
    return ActivityFacts(
        time_ms,
        activity.activity_id,
        TYPE_INDEX[activity.activity_type],
        0 if context is None else _hash64(context.ip_address),
        0 if context is None else _hash64(context.device_id),
        _hash64(activity.event_id),
        1 if activity.failed else 0,
    )


def _hash64(text: str | None) -> int:
    if not text:
        return 0
    return _cached_hash64(text) if len(text) <= _CACHED_CHARACTERS else _compute_hash64(text)


def _compute_hash64(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1  # 0 means unknown


# Addresses, devices and events come again and again. Longer texts are hostile and would only fill memory.
_CACHED_CHARACTERS = 64
_cached_hash64 = lru_cache(maxsize=16_384)(_compute_hash64)


def profiles_at(
    history: Sequence[ActivityFacts], targets: Collection[tuple[int, str]], *, window: int = PROFILE_WINDOW
) -> dict[tuple[int, str], Profile]:
    """Computes a user's profiles as of several activities in one sweep, O(1) for each activity.

    Args:
        history: the user's activities sorted by (time_ms, activity_id), each once, beginning at the ``window``-th
            activity up to the first target or earlier; the result is the same wherever it begins.
        targets: (time_ms, activity_id) of the activities to have a profile for.
        window: how many activities a profile looks at.

    Returns:
        A profile for each target.

    Raises:
        ValueError: a target is not in the history.
    """
    wanted = frozenset(targets)
    found: dict[tuple[int, str], Profile] = {}
    state = _Window()
    for index, facts in enumerate(history):
        state.add(facts)
        if index >= window:
            state.remove(history[index - window])
        key = facts[:2]
        if key in wanted:
            found[key] = state.profile(facts[0])
            if len(found) == len(wanted):
                break
    if len(found) != len(wanted):
        raise ValueError(f"{len(wanted) - len(found)} of {len(wanted)} targets are not in the history")
    return found


class _Window:
    """The running integer statistics of the activities in the window."""

    __slots__ = (
        "_active_ms",
        "_addresses",
        "_breaks",
        "_devices",
        "_events",
        "_failures",
        "_fast",
        "_first",
        "_gap_buckets",
        "_hours",
        "_minute_start",
        "_repeats",
        "_rhythm_gaps",
        "_similar_pairs",
        "_ten_minutes_start",
        "_times",
        "_total",
        "_type_counts",
        "_types",
    )

    def __init__(self) -> None:
        self._total = 0
        self._failures = 0
        self._type_counts = [0] * len(ACTIVITY_TYPES)
        self._hours = [0] * 24
        self._addresses: dict[int, int] = {}
        self._devices: dict[int, int] = {}
        self._events: dict[int, int] = {}
        # Decisions: all seen so far; those before _first have left the window.
        self._times: list[int] = []
        self._types: list[int] = []
        self._first = 0
        self._minute_start = 0
        self._ten_minutes_start = 0
        # Gaps between neighbouring decisions.
        self._active_ms = 0
        self._fast = 0
        self._breaks = 0
        self._repeats = 0
        self._gap_buckets = [0] * _GAP_BUCKETS
        self._rhythm_gaps = 0
        self._similar_pairs = 0

    def add(self, facts: ActivityFacts) -> None:
        time_ms, _, type_index, address, device, event, failed = facts
        self._total += 1
        self._failures += failed
        self._type_counts[type_index] += 1
        self._hours[time_ms // _HOUR_MS % 24] += 1
        if address:
            addresses = self._addresses
            addresses[address] = addresses.get(address, 0) + 1
        if device:
            devices = self._devices
            devices[device] = devices.get(device, 0) + 1
        if event:
            events = self._events
            events[event] = events.get(event, 0) + 1
        if type_index == _ASSET_VIEW:
            return
        times = self._times
        types = self._types
        if len(times) > self._first:
            gap = time_ms - times[-1]
            if gap < _FAST_GAP_MS:
                self._fast += 1
            elif gap >= _RHYTHM_GAP_MS:
                bucket = _gap_bucket(gap)
                alike = self._gap_buckets[bucket]
                self._gap_buckets[bucket] = alike + 1
                self._similar_pairs += alike
                self._rhythm_gaps += 1
            if gap > _SESSION_BREAK_MS:
                self._breaks += 1
                self._active_ms += _SESSION_BREAK_MS
            else:
                self._active_ms += gap
            if types[-1] == type_index:
                self._repeats += 1
        times.append(time_ms)
        types.append(type_index)

    def remove(self, facts: ActivityFacts) -> None:
        """Undoes ``add`` for the oldest activity in the window."""
        time_ms, _, type_index, address, device, event, failed = facts
        self._total -= 1
        self._failures -= failed
        self._type_counts[type_index] -= 1
        self._hours[time_ms // _HOUR_MS % 24] -= 1
        if address:
            _decrement(self._addresses, address)
        if device:
            _decrement(self._devices, device)
        if event:
            _decrement(self._events, event)
        if type_index == _ASSET_VIEW:
            return
        following = self._first + 1
        self._first = following
        if following == len(self._times):
            return
        gap = self._times[following] - time_ms
        if gap < _FAST_GAP_MS:
            self._fast -= 1
        elif gap >= _RHYTHM_GAP_MS:
            bucket = _gap_bucket(gap)
            alike = self._gap_buckets[bucket] - 1
            self._gap_buckets[bucket] = alike
            self._similar_pairs -= alike
            self._rhythm_gaps -= 1
        if gap > _SESSION_BREAK_MS:
            self._breaks -= 1
            self._active_ms -= _SESSION_BREAK_MS
        else:
            self._active_ms -= gap
        if self._types[following] == type_index:
            self._repeats -= 1

    def profile(self, as_of_ms: int) -> Profile:
        """The profile of the window, whose newest activity is of ``as_of_ms``."""
        total = self._total
        type_counts = self._type_counts
        decisions = len(self._times) - self._first
        gaps = decisions - 1
        rate = regularity = fast = breaks = repeats = None
        if gaps >= MIN_GAPS:
            # A burst within one second counts as one second: a clock's resolution must not make rates boundless.
            rate = gaps * _MINUTE_MS * _MILLE // max(self._active_ms, 1_000) / _MILLE
            fast = self._fast * _MILLE // gaps / _MILLE
            breaks = self._breaks * _MILLE // gaps / _MILLE
            repeats = self._repeats * _MILLE // gaps / _MILLE
            rhythm = self._rhythm_gaps
            if rhythm >= MIN_RHYTHM_GAPS:
                regularity = 2 * self._similar_pairs * _MILLE // (rhythm * (rhythm - 1)) / _MILLE
        failures = logins = searches = purchases = assets = night = None
        if total >= MIN_ACTIVITIES:
            cart, checkout, purchase = _PURCHASE_STEPS
            failures = self._failures * _MILLE // total / _MILLE
            logins = type_counts[_LOGIN] * _MILLE // total / _MILLE
            searches = type_counts[_SEARCH] * _MILLE // total / _MILLE
            steps = type_counts[cart] + type_counts[checkout] + type_counts[purchase]
            purchases = steps * _MILLE // total / _MILLE
            assets = type_counts[_ASSET_VIEW] * _MILLE // total / _MILLE
            night = sum(self._hours[:_NIGHT_ENDS]) * _MILLE // total / _MILLE
        return Profile(
            as_of_ms,
            (
                total,
                rate,
                *self._recent_counts(as_of_ms),
                regularity,
                fast,
                breaks,
                len(self._addresses) or None,
                len(self._devices) or None,
                len(self._events) or None,
                failures,
                logins,
                searches,
                purchases,
                assets,
                len(type_counts) - type_counts.count(0),
                24 - self._hours.count(0),
                repeats,
                night,
            ),
        )

    def _recent_counts(self, as_of_ms: int) -> tuple[int, int]:
        """Decisions of the last minute and of the last ten; both starts only ever move on."""
        times = self._times
        end = len(times)
        ten = max(self._ten_minutes_start, self._first)
        while ten < end and times[ten] <= as_of_ms - 10 * _MINUTE_MS:
            ten += 1
        self._ten_minutes_start = ten
        minute = max(self._minute_start, ten)
        while minute < end and times[minute] <= as_of_ms - _MINUTE_MS:
            minute += 1
        self._minute_start = minute
        return end - minute, end - ten


def _gap_bucket(gap_ms: int) -> int:
    """The quarter octave of a gap: its highest bit and the two bits below."""
    bits = gap_ms.bit_length()
    return (bits << 2) | ((gap_ms >> (bits - 3)) & 3)


def _decrement(counts: dict[int, int], key: int) -> None:
    count = counts[key]
    if count == 1:
        del counts[key]
    else:
        counts[key] = count - 1
