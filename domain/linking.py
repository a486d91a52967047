"""What links two fans: identifiers they share, made comparable, and the limits beyond which sharing means nothing.

An identifier is *weak* where strangers share it without knowing of each other: half a street is in one block of IP
addresses. Weak identifiers link two fans only where they share ``WEAK_NEEDED`` different ones. (One weak and one strong
identifier is no case of its own: the strong one links them already.) An identifier of any kind that more fans have than
its limit is a *hub*, such as an office's address or a shop's demonstration phone: it links nobody.
"""

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

WEAK_NEEDED: Final = 2
"""Weak identifiers two fans must share to be linked by them."""

MOST_WEAK_FANS: Final = 1_000
"""The greatest limit of a weak kind: its identifiers are compared pair by pair."""

_IPV4_BITS: Final = 24
_IPV6_BITS: Final = 48
_PHONE_DIGITS: Final = range(7, 16)  # E.164 allows 15; fewer than 7 are short codes
_MIN_ADDRESS: Final = 6
_EXTENSION: Final = re.compile(r"(?:ext\.?|extension|x|#)\s*\d{1,6}\s*$", re.IGNORECASE)
_TRUNK_ZERO: Final = re.compile(r"\(\s*0\s*\)")
_PLACEHOLDERS: Final = frozenset({"null", "none", "nil", "unknown", "undefined", "n/a", "na", "nan", "-"})
_FAN: Final = b"fan"


class LinkKind(StrEnum):
    """What fans can share; the values are the names of fields and columns."""

    DEVICE = "deviceId"
    PAYMENT = "paymentId"
    PHONE = "phone"
    ADDRESS = "address"
    IP_BLOCK = "ipAddress"


KINDS: Final = tuple(LinkKind)
"""In the order of their codes, 0 to 4."""

DEFAULT_LIMITS: Final[Mapping[LinkKind, int]] = {
    LinkKind.DEVICE: 10,
    LinkKind.PAYMENT: 10,
    LinkKind.PHONE: 5,
    LinkKind.ADDRESS: 10,
    LinkKind.IP_BLOCK: 20,
}
"""Fans an identifier may have: a family and some friends; more is a shop, an office, a mobile operator's exit."""


class LinkRules(msgspec.Struct, frozen=True):
    """What counts as a link.

    Attributes:
        limits: fans an identifier of a kind may have; one with more is a hub.
        weak: kinds that link only in numbers.
        review_size: a cluster of more fans is not written with the others, but put aside for a person to look at.

    Raises:
        ValueError: a limit is under 2, a weak kind's over ``MOST_WEAK_FANS``, or the review size under 2.
    """

    limits: Mapping[LinkKind, int] = msgspec.field(default_factory=lambda: dict(DEFAULT_LIMITS))
    weak: frozenset[LinkKind] = frozenset({LinkKind.IP_BLOCK})
    review_size: int = 200

    def __post_init__(self) -> None:
        for kind, limit in self.limits.items():
            if limit < 2:  # noqa: PLR2004 - one fan shares with nobody
                raise ValueError(f"the limit of {kind} is {limit}; it must be at least 2")
            if kind in self.weak and limit > MOST_WEAK_FANS:
                raise ValueError(f"the limit of {kind}, a weak kind, is {limit}; it must be at most {MOST_WEAK_FANS}")
        if self.review_size < 2:  # noqa: PLR2004 - one fan is no cluster
            raise ValueError(f"the review size is {self.review_size}; it must be at least 2")


def normalize(kind: LinkKind, text: str) -> str | None:
    """An identifier as it is compared, or None where it says nothing.

    - Phone numbers: digits only, with ``00`` for ``+``, the trunk zero of ``+49 (0) 170 …`` and extensions left out.
      7 to 15 digits. A number without its country's code stays as it is, and is another one than with it.
    - Addresses: case, accents, punctuation and runs of blanks do not count. At least 6 characters with a letter.
    - IP addresses: the block, ``a.b.c.0/24`` or ``x:y:z::/48``; none for addresses that are not public.
    - Devices and payment instruments: as they are, without blanks around them.

    Placeholders such as ``null``, and texts of one repeated character such as ``00000000``, are none of these.
    """
    stripped = text.strip()
    if kind is LinkKind.PHONE:
        found = _phone(stripped)
    elif kind is LinkKind.ADDRESS:
        found = _address(stripped)
    elif kind is LinkKind.IP_BLOCK:
        found = _ip_block(stripped)
    else:
        found = stripped
    return None if found is None or _says_nothing(found) else found


def _says_nothing(text: str) -> bool:
    return text.casefold() in _PLACEHOLDERS or len(set(text.replace("-", ""))) <= 1


def identifier_hash(kind: LinkKind, value: str, key: bytes) -> int:
    """A keyed hash, 64 bits, of a normalized identifier; equal texts of different kinds have different hashes.

    Of 10 million identifiers of a kind two have the same hash with a probability of 3 in a million.

    Args:
        kind: of the identifier.
        value: from ``normalize``.
        key: up to 64 bytes, random for each run, so that hashes mean nothing outside of it.
    """
    return _hash(value, key, kind.value.encode())


def fan_hash(global_user_id: str, key: bytes) -> int:
    """A keyed hash, 64 bits, of a fan's id.

    Raises:
        UnicodeEncodeError: the id is no text that can be written as UTF-8.
    """
    return _hash(global_user_id, key, _FAN)


def _hash(text: str, key: bytes, person: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key, person=person).digest(), "little")


def _phone(text: str) -> str | None:
    plain = _TRUNK_ZERO.sub("", _EXTENSION.sub("", text))
    digits = "".join(str(unicodedata.digit(char)) for char in plain if char.isdigit())
    if digits.startswith("00"):
        digits = digits.lstrip("0")  # no country's code begins with one
    return digits if len(digits) in _PHONE_DIGITS else None


def _address(text: str) -> str | None:
    # Again after the case is gone: a sign such as that for "TEL" is taken apart into capitals.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    kept = "".join(char if char.isalnum() else " " for char in decomposed if not unicodedata.combining(char))
    joined = " ".join(kept.split())
    return joined if len(joined) >= _MIN_ADDRESS and any(char.isalpha() for char in joined) else None


def _ip_block(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if not address.is_global or address.is_multicast:
        return None
    bits = _IPV4_BITS if address.version == 4 else _IPV6_BITS  # noqa: PLR2004 - versions of IP
    return str(
        ipaddress.ip_network((int(address) >> (address.max_prefixlen - bits) << (address.max_prefixlen - bits), bits))
    )
