"""The audit log of operators' actions: lines that each hold the hash of the line before, so that tampering shows.

A line's hash is the SHA-256 of its canonical bytes, or their HMAC where there is a key (RFC 2104). Without a key the
chain shows what was changed by who did not work out every later hash again; a head noted elsewhere shows that too. With
a key, nobody who does not have it can make a line.

Lines name no fan: their targets are ids of dead letters and jobs, versions of imports, and names of workers.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from .access import CallerKind, Identity

AUDIT_PK: Final = "AUDIT"
START: Final = "0" * 64
"""What the first line holds for the hash of the line before."""

_FORMAT: Final = "fan-identity audit 1"
_DIGITS: Final = 15
_OF_TABLE: Final = ("PK", "SK", "type")
_SHOWN_OF_HASH: Final = 16
_encode: Final = msgspec.json.Encoder(order="sorted").encode


Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""A whole number that every reader of JSON takes for the same."""


class Outcome(StrEnum):
    """What became of an action. The line of its beginning is written before it, one of its end after it."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """What is to be told of an action.

    Attributes:
        reference: names the action, the same in the lines of its beginning and its end.
        subject: who acts, as ``subject_of`` has it.
        action: ``deadLetters.redrive``, ``deadLetters.reveal``, ``imports.rollback``, ``flags.switch``.
        target: the letter, job, version or worker acted on.
        outcome: begun, or how it ended.
        details: numbers and short texts, without personal data.
        request_id: of the request that asked for it.
    """

    reference: str
    subject: str
    action: str
    target: str
    outcome: Outcome
    details: Mapping[str, str | Whole] = {}
    request_id: str = ""


class Line(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A line of the log.

    Attributes:
        seq: its place, from 1, without gaps.
        at: epoch milliseconds, by the clock of who wrote it.
        reference: see ``Entry``, as the others up to ``request_id``.
        previous: the hash of the line before; ``START`` in the first.
        keyed: whether the hash is an HMAC.
        hash: of all of the above, 64 hex digits.
    """

    seq: Whole
    at: Whole
    reference: str
    subject: str
    action: str
    target: str
    outcome: Outcome
    details: Mapping[str, str | Whole]
    request_id: str
    previous: str
    keyed: bool
    hash: str


def canonical(line: Line) -> bytes:
    """What is hashed: a JSON array of the format's name and every field but the hash, details sorted by name.

    UTF-8, no white space: any program with SHA-256 and JSON can check a line.

    >>> canonical(Line(1, 0, "r", "service:x", "a", "t", Outcome.DONE, {"n": 1}, "q", "00", False, ""))
    b'["fan-identity audit 1",1,0,"r","service:x","a","t","done",{"n":1},"q","00",false]'
    """
    return _encode([_FORMAT, *msgspec.structs.astuple(line)[:-1]])


def hash_of(line: Line, key: bytes | None) -> str:
    """The hash a line must have.

    Args:
        line: its own ``hash`` does not count.
        key: of the HMAC, for a keyed line.

    Raises:
        ValueError: the line is keyed, and there is no key.
    """
    if not line.keyed:
        return hashlib.sha256(canonical(line)).hexdigest()
    if key is None:
        raise ValueError("a keyed line needs the key")
    return hmac.new(key, canonical(line), hashlib.sha256).hexdigest()


def line_after(head: Line | None, entry: Entry, at: int, key: bytes | None) -> Line:
    """The line that follows the head of a log.

    Args:
        head: the last line; None for an empty log.
        entry: what it tells.
        at: epoch milliseconds.
        key: of the HMAC; None for SHA-256.
    """
    seq, previous = (1, START) if head is None else (head.seq + 1, head.hash)
    line = Line(seq, at, *msgspec.structs.astuple(entry), previous=previous, keyed=key is not None, hash="")
    return msgspec.structs.replace(line, hash=hash_of(line, key))


def audit_sk(seq: int) -> str:
    """A line's sort key: its place in fixed width, so that text order is the log's."""
    return f"{seq:0{_DIGITS}d}"


def line_item(line: Line) -> dict[str, Any]:
    """A line as an item of the operations table."""
    return {"PK": AUDIT_PK, "SK": audit_sk(line.seq), "type": "audit", **msgspec.to_builtins(line)}


def line_of(item: Mapping[str, Any]) -> Line | None:
    """The line an item holds; None where it is none, such as one that somebody added a field to."""
    try:
        return msgspec.convert({name: value for name, value in item.items() if name not in _OF_TABLE}, Line)
    except msgspec.ValidationError:
        return None


def subject_of(identity: Identity) -> str:
    """Names who acts: a service or an API key as it is called; of a person a hash of the id, who may be a fan too.

    >>> subject_of(Identity(CallerKind.SERVICE, "night-shift"))
    'service:night-shift'
    """
    if identity.kind is not CallerKind.USER:
        return f"{identity.kind}:{identity.subject}"
    return f"user:{hashlib.sha256(identity.subject.encode()).hexdigest()[:_SHOWN_OF_HASH]}"


class Fault(StrEnum):
    """What is wrong with a log, in words."""

    UNREADABLE = "it is no line of a log"
    MISSING = "lines are missing before it, or it stands in the wrong place"
    REPEATED = "it stands in the wrong place: a line of this place was there before"
    UNLINKED = "it does not follow the line before: one of the two was changed, removed or inserted"
    CHANGED = "its hash is not its content's: it was changed, or made without the key"
    UNKEYED = "it is not keyed, though lines must be: it was made without the key"
    NO_KEY = "it is keyed, and there is no key to check it with"
    CUT = "the log ends before it: the tail was cut"
    OTHER_HEAD = "the head noted elsewhere is not in the log: it was written anew, or its tail was cut"


class Verdict(msgspec.Struct, frozen=True, rename="camel"):
    """What a check of a log found.

    Attributes:
        lines: how many lines are whole, from the first on.
        head: the hash of the last whole one; ``START`` where there is none.
        seq: the first broken line, or the one that should be there; None where all is well.
        fault: what is wrong with it.
    """

    lines: int
    head: str
    seq: int | None = None
    fault: Fault | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None


def verify(
    items: Iterable[Mapping[str, Any] | None],
    key: bytes | None = None,
    *,
    head: str | None = None,
    count: int | None = None,
    keyed_from: int = 1,
) -> Verdict:
    """Checks a log from its first line on, up to the first that is broken.

    Args:
        items: as stored, in the order of their sort keys; None for one that is not there.
        key: of the HMAC, where lines are keyed.
        head: a hash that was the head once, noted elsewhere: it must still be in the log.
        count: how many lines there were at least. With ``head``, the head was the line of this place.
        keyed_from: with a key, the first line that must be keyed: where the log is older than the key.
    """
    found = head in (None, START)
    last: Line | None = None
    for place, item in enumerate(items, 1):
        line = None if item is None else line_of(item)
        fault = _fault(item, line, place, last, key, keyed_from)
        if fault is None and line is not None and count == place and head not in (None, line.hash):
            fault = Fault.OTHER_HEAD
        if fault is not None or line is None:
            return _verdict(last, place, fault)
        last = line
        found = found or line.hash == head
    lines = 0 if last is None else last.seq
    if count is not None and lines < count:
        return _verdict(last, lines + 1, Fault.CUT)
    return _verdict(last, lines + 1, Fault.OTHER_HEAD) if not found else _verdict(last, None, None)


def _fault(
    item: Mapping[str, Any] | None, line: Line | None, place: int, last: Line | None, key: bytes | None, keyed_from: int
) -> Fault | None:
    if line is None:
        return Fault.MISSING if item is None else Fault.UNREADABLE
    if line.seq != place:
        return Fault.MISSING if line.seq > place else Fault.REPEATED
    if key is None and line.keyed:
        return Fault.NO_KEY
    if key is not None and not line.keyed and place >= keyed_from:
        return Fault.UNKEYED
    if not hmac.compare_digest(line.hash.encode(), hash_of(line, key).encode()):
        return Fault.CHANGED
    return None if line.previous == (START if last is None else last.hash) else Fault.UNLINKED


def _verdict(last: Line | None, seq: int | None, fault: Fault | None) -> Verdict:
    lines, head = (0, START) if last is None else (last.seq, last.hash)
    return Verdict(lines, head, seq, fault)


def unfinished(lines: Iterable[Line]) -> list[Line]:
    """The begun lines whose action has no line of its end, oldest first."""
    begun: dict[str, Line] = {}
    for line in lines:
        if line.outcome is Outcome.BEGUN:
            begun[line.reference] = line
        else:
            begun.pop(line.reference, None)
    return list(begun.values())
