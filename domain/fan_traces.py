"""What one fan leaves behind: the names a fan goes by in keys, and whether bytes from outside speak of the fan.

Bytes are decoded before they are looked into, and a name counts only as a whole value: fan ``f1`` is not in a record of
``f10``, nor in one of ``x"f1"``.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from .demand import fan_pk
from .keys import arm_cache_key, fifo_group_id, member_pk, user_pk, user_token

_MOST_DEPTH: Final = 5  # of JSON in a text of JSON: SNS in EventBridge in SQS, and an activity in a message
_LITERAL: Final = re.compile(r'(?<![\\"])"(?:[^"\\]|\\.)*"(?!")')
_ESCAPED: Final = re.compile(r'["\\/\x00-\x1f\x7f]')
_NUMBERS_OF_FANS: Final = ("userid", "memberid", "user")
"""How names of fields end that may hold a fan's id as a number."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


class Fan(msgspec.Struct, frozen=True):
    """A fan to be found.

    Attributes:
        global_user_id: who.
        member_id: the fan's account, where it is known.
    """

    global_user_id: str
    member_id: str | None = None

    @property
    def digest(self) -> str:
        """Names the fan in the books of an erasure: ``sha256:`` and 64 hex digits of the id's hash."""
        return f"sha256:{hashlib.sha256(self.global_user_id.encode()).hexdigest()}"

    @property
    def pk(self) -> str:
        """The partition of the fan's items, ``USER#…``."""
        return user_pk(self.global_user_id)

    @property
    def demand_pk(self) -> str:
        """The partition of what the fan registered for, ``fan:…``."""
        return fan_pk(self.global_user_id)

    @property
    def member_pk(self) -> str | None:
        """The partition of the account's score, ``MEMBER#…``; None where the account is not known."""
        return None if self.member_id is None else member_pk(self.member_id)

    @property
    def cache_key(self) -> str:
        """The key of the fan's entry in the ARM cache."""
        return arm_cache_key(self.global_user_id)

    @property
    def group_id(self) -> str:
        """The group of the fan's messages."""
        return fifo_group_id(self.global_user_id)

    @property
    def names(self) -> frozenset[str]:
        """Every text that stands for this fan and for nobody else."""
        user, member = self.global_user_id, self.member_id
        names = {user, user_token(user), self.pk, self.demand_pk, self.cache_key, self.group_id}
        if member is not None:
            names |= {member, user_token(member), member_pk(member)}
        return frozenset(names)


def speaks_of(payload: bytes, fan: Fan) -> bool:
    """Whether a record holds one of the fan's names as a whole value.

    JSON is looked through to the last value, JSON inside its texts too. Of what is no JSON, each quoted text counts as
    a value, and each cell where it may be a row of CSV.
    """
    names, needles = _looked_for(fan)
    # Millions of records are looked through for one fan, and nearly none is decoded.
    if needles and b"\\u" not in payload and not any(needle in payload for needle in needles):
        return False
    try:
        value: Any = _decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _text_speaks(payload.decode(errors="surrogateescape"), names)
    return _speaks(value, names)


@lru_cache(maxsize=64)
def _looked_for(fan: Fan) -> tuple[frozenset[str], tuple[bytes, ...]]:
    """A fan's names, and bytes of which one must stand in a record that speaks of the fan without a Unicode escape.

    There are none where a name has characters that JSON or CSV write in two ways.
    """
    names = fan.names
    if any(_ESCAPED.search(name) for name in names):
        return names, ()
    shortest = [name for name in names if not any(other != name and other in name for other in names)]
    return names, tuple(name.encode() for name in shortest)


def _speaks(top: Any, names: frozenset[str]) -> bool:
    waiting: list[tuple[str, Any, int]] = [("", top, 0)]
    while waiting:
        field, value, depth = waiting.pop()
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            if not names.isdisjoint(members):
                return True
            waiting += [(name, member, depth) for name, member in members.items()]
        elif isinstance(value, list):
            waiting += [(field, member, depth) for member in cast("list[Any]", value)]
        elif isinstance(value, str):
            if value in names:
                return True
            if depth < _MOST_DEPTH and (inner := _json_in(value)) is not None:
                waiting.append((field, inner, depth + 1))
        elif (
            isinstance(value, int) and str(value) in names and field.lower().endswith(_NUMBERS_OF_FANS)
        ):  # a Parquet file's ids may be numbers
            return True
    return False


def _json_in(text: str) -> Any:
    """The array or object a text is, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _text_speaks(text: str, names: frozenset[str]) -> bool:
    if any(value in names for value in _quoted(text)):
        return True
    # Where a quote is missing, texts and what is between them change places: names are looked for between quotes too.
    if any(re.search(f'(?<![\\\\"]){re.escape(form)}(?!")', text) for name in names for form in _written(name)):
        return True
    return not text.lstrip("\ufeff \t").startswith(("{", "[")) and any(cell in names for cell in _cells(text))


def _quoted(text: str) -> Iterator[str]:
    for literal in _LITERAL.findall(text):
        try:
            yield str(_decode(literal))
        except (msgspec.MsgspecError, UnicodeError):
            yield literal[1:-1]


def _written(name: str) -> tuple[str, str]:
    """The two usual ways to write a text in JSON: in ASCII only, and as it is."""
    return json.dumps(name), json.dumps(name, ensure_ascii=False)


def _cells(text: str) -> Iterator[str]:
    try:
        for row in csv.reader(io.StringIO(text, newline="")):
            yield from row
    except csv.Error:  # longer than any cell Python's module takes
        yield from (cell.rstrip("\r\n") for cell in text.split(","))


def without(payload: bytes, fan: Fan) -> bytes | None:
    """A record that speaks of several fans, without this one; None where nothing is left of it.

    Only lists named ``users`` (of rescore requests) name several fans; any other record that speaks of the fan is the
    fan's own.
    """
    try:
        value: Any = _decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    names = fan.names
    rest = _without(value, names, 0)
    if rest is None or _speaks(rest, names):
        return None
    return _encode(rest)


def _without(value: Any, names: frozenset[str], depth: int) -> Any:
    """A value without the fan in its lists of users; None where such a list would be empty."""
    if isinstance(value, dict):
        rest: dict[str, Any] = {}
        for field, member in cast("dict[str, Any]", value).items():
            if field == "users" and isinstance(member, list):
                rest[field] = [user for user in cast("list[Any]", member) if str(user) not in names] or None
            else:
                rest[field] = _without(member, names, depth)
            if rest[field] is None and member is not None:
                return None
        return rest
    if isinstance(value, str) and depth < _MOST_DEPTH and (inner := _json_in(value)) is not None:
        if not _speaks(inner, names):
            return value
        left = _without(inner, names, depth + 1)
        return None if left is None else _encode(left).decode()
    return value
