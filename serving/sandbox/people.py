"""Made-up users: what the sandbox's Accounts service knows of a user id, the same at every call."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

UNKNOWN_PREFIX: Final = "unknown-"
"""Ids that begin so are unknown to the Accounts service."""

# For each feature its value for the most human and for the most automated account; a user lies between.
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "activityCount": (2, 600),
    "activitiesPerMinute": (0.4, 80),
    "lastMinuteCount": (1, 90),
    "lastTenMinutesCount": (2, 320),
    "gapRegularity": (0.05, 0.8),
    "fastGapShare": (0.02, 0.8),
    "sessionBreakShare": (0.005, 0.2),
    "distinctAddresses": (1, 14),
    "distinctDevices": (1, 6),
    "distinctEvents": (1, 24),
    "failureShare": (0.0, 0.6),
    "loginShare": (0.04, 0.3),
    "searchShare": (0.005, 0.7),
    "purchaseShare": (0.005, 0.3),
    "assetShare": (0.5, 0.0),
    "typeVariety": (7, 1),
    "distinctHoursOfDay": (1, 20),
    "sameTypeRepeatShare": (0.05, 0.95),
    "nightShare": (0.02, 0.5),
}
_COUNTS: Final = frozenset(
    {
        "activityCount",
        "lastMinuteCount",
        "lastTenMinutesCount",
        "distinctAddresses",
        "distinctDevices",
        "distinctEvents",
        "typeVariety",
        "distinctHoursOfDay",
    }
)
_NOISE: Final = 0.25
_FANS: Final = 9.0  # the greater, the more users are like fans


def features_of(global_user_id: str, seed: int) -> dict[str, float]:
    """A user's made-up profile: numbers by the names of ``FEATURES``, derived from a hash of id and seed.

    Most users are like fans, some like bots, and the embedded scorecard finds every ARM level among a few hundred.
    """
    automation = draw(global_user_id, seed, "") ** _FANS
    features: dict[str, float] = {}
    for name, (human, automated) in _RANGES.items():
        noise = (draw(global_user_id, seed, name) - 0.5) * _NOISE
        share = min(1.0, max(0.0, automation + noise * automation))
        value = human + (automated - human) * share
        features[name] = round(value) if name in _COUNTS else round(value, 3)
    return features


def accounts_answer(global_user_id: str, seed: int) -> dict[str, Any] | None:
    """The Accounts service's answer on a user, or None for an unknown one."""
    if global_user_id.startswith(UNKNOWN_PREFIX):
        return None
    return {
        "globalUserId": global_user_id,
        "memberSince": f"{2005 + int(draw(global_user_id, seed, 'memberSince') * 20)}-01-01",
        "features": features_of(global_user_id, seed),
    }


def draw(global_user_id: str, seed: int, what: str) -> float:
    """0 to 1, evenly spread over users."""
    text = f"{seed}\0{what}\0{global_user_id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / (1 << 48)
