"""Addresses: how every backend is named, ``scheme://target?option=value``."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from .errors import UsageError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")  # RFC 3986


@dataclass(frozen=True)
class Address:
    """An address ``scheme://target?option=value``.

    Attributes:
        scheme: in lower case.
        target: what follows ``://`` up to the options.
        options: by name.
    """

    scheme: str
    target: str
    options: dict[str, str] = field(default_factory=dict[str, str])


def parse_address(text: str, setting: str) -> Address:
    """Splits an address.

    Args:
        text: the address.
        setting: where it came from, for the error.

    Raises:
        UsageError: it is none.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise UsageError(f"--{setting}: not an address; write for example sqlite:///fans.db")
    target, _, query = rest.partition("?")
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError:
        raise UsageError(f"--{setting}: options are written ?name=value&name=value") from None
    return Address(scheme.lower(), target, options)


def partition_source(address: str, partition: str) -> str:
    """Names a partition of a stream, in batches, dead letters and committed positions: the address without its options.

    >>> partition_source("kinesis://purchases?region=eu-west-1", "shardId-000000000001")
    'kinesis://purchases#shardId-000000000001'
    """
    return f"{address.partition('?')[0]}#{partition}"


def check_options(address: Address, setting: str, known: Collection[str]) -> None:
    """Refuses options nobody reads: a misspelt one would silently do nothing.

    Raises:
        UsageError: naming the option and those there are.
    """
    for name in address.options:
        if name not in known:
            raise UsageError(
                f"--{setting}: {address.scheme}:// has no option {name!r}; there are: {', '.join(sorted(known))}"
            )


def int_option(address: Address, setting: str, name: str, default: int, *, least: int = 0) -> int:
    """A whole-number option.

    Raises:
        UsageError: it is none, or below ``least``.
    """
    text = address.options.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise UsageError(f"--{setting}: option {name} is a whole number of at least {least}")
    return int(text)


def time_option_ms(address: Address, setting: str, name: str) -> int | None:
    """An option that is a time in ISO 8601 (UTC where no offset is given), as epoch milliseconds; None where absent.

    Raises:
        UsageError: it is none.
    """
    text = address.options.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--{setting}: option {name} is a time such as 2026-11-27T10:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)
