"""How the report words things: shortened, escaped, counted, and in plain names.

Whatever names something in the data (user ids first of all) is hostile: ``shown`` makes control characters visible and
shortens it; in plots, where plotly reads HTML-like tags, ``label`` also escapes it. In the page Jinja escapes.
"""

import hashlib
import html
from collections.abc import Mapping
from typing import Final

_SHOWN: Final = 48  # characters of a name from outside
_SHOWN_IN_PLOTS: Final = 22

_WORDS: Final[Mapping[str, str]] = {
    "unknown_type": "not a kind of activity that is scored",
    "blank_user": "no user id",
    "too_old": "too old, or a broken clock",
    "in_future": "in the future",
    "internal_account": "the seller's own accounts",
    "malformed": "not a valid activity",
    "unreadable": "could not be read",
    "too_many_receives": "given up after too many attempts",
    "ACTIVITY_VOLUME": "Activities on record",
    "ACTIVITY_RATE": "Activities a minute",
    "BURST_IN_LAST_MINUTE": "Burst, last minute",
    "BURST_IN_LAST_TEN_MINUTES": "Burst, last 10 minutes",
    "REGULAR_INTERVALS": "Clockwork intervals",
    "FASTER_THAN_A_PERSON": "Faster than a person",
    "SESSION_BREAKS": "Breaks between visits",
    "ADDRESS_COUNT": "Network addresses",
    "DEVICE_COUNT": "Devices",
    "EVENT_COUNT": "Events looked at",
    "FAILED_ATTEMPTS": "Failed attempts",
    "LOGIN_SHARE": "Share of logins",
    "SEARCH_SHARE": "Share of searches",
    "PURCHASE_SHARE": "Share of purchase steps",
    "ASSET_LOADS": "Images and scripts",
    "ACTIVITY_VARIETY": "Kinds of activity",
    "HOURS_OF_DAY": "Hours of the day",
    "NIGHT_ACTIVITY": "Active at night (UTC)",
    "REPEATS_ITSELF": "Same thing repeated",
}
"""Short plain names of codes. A code that is not here, as another model may send, is shown as it is."""


def shown(text: object, limit: int = _SHOWN) -> str:
    """Text from outside for people: control characters made visible, at most ``limit`` characters long.

    What is cut ends in a part of its hash, so that two different texts stay different.
    """
    whole = str(text)
    visible = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in whole[: limit + 1]
    )
    if len(visible) <= limit:
        return visible
    ending = f"… #{hashlib.sha256(whole.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return visible[: limit - len(ending)] + ending


def label(text: str) -> str:
    """A name as plotly may show it: short enough beside a plot on a phone, and without its HTML-like tags."""
    return html.escape(shown(text, _SHOWN_IN_PLOTS), quote=False)


def words(code: str) -> str:
    """A code's plain name."""
    return _WORDS.get(code, code)


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def percent(share: float) -> str:
    """A share of 1 in per cent; only all is 100 %, and only nothing is 0 %."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    hundredths = share * 100
    digits = f"{hundredths:.2f}" if hundredths < 1 else f"{hundredths:.1f}"
    return {"0.00": "under 0.01 %", "100.0": "over 99.9 %"}.get(digits, f"{digits} %")
