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
    UNKEYED = "it is not keyed, though lines must be from here on: it was made without the key"
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
        keyed_from: the first keyed line; None where there is none. Lines before it could be made without the key, up to
            the moment it was written; since then its HMAC holds their hashes too.
    """

    lines: int
    head: str
    seq: int | None = None
    fault: Fault | None = None
    keyed_from: int | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None

    @property
    def unkeyed(self) -> int:
        """How many lines are before the first keyed one."""
        return self.lines if self.keyed_from is None else self.keyed_from - 1


NOTHING_CHECKED: Final = Verdict(0, START)
"""The verdict of an empty log."""


def verify(
    items: Iterable[Mapping[str, Any] | None],
    key: bytes | None = None,
    *,
    head: str | None = None,
    count: int | None = None,
    keyed_from: int | None = 1,
    checked: Verdict = NOTHING_CHECKED,
) -> Verdict:
    """Checks a log from its first line on, or from one that was checked before, up to the first that is broken.

    Args:
        items: as stored, in the order of their sort keys; None for one that is not there. Where ``checked`` has lines,
            its last one comes first: it must be the line it was.
        key: of the HMAC, where lines are keyed.
        head: a hash that was the head once, noted elsewhere: it must still be in the log.
        count: how many lines there were at least. With ``head``, the head was the line of this place.
        keyed_from: with a key, the first line that must be keyed: where the log is older than the key. None for the
            first that is. Behind a keyed line every one must be keyed in any case.
        checked: a whole verdict of the same log and key: only its last line and those behind it are looked at.
    """
    found = head in (None, START, checked.head)
    last: Line | None = None
    seen = checked
    for place, item in enumerate(items, max(checked.lines, 1)):
        line = None if item is None else line_of(item)
        fault = _fault(item, line, place, key)
        if fault is None and line is not None:
            must_be_keyed = seen.keyed_from is not None or (keyed_from is not None and place >= keyed_from)
            fault = _fault_in_chain(line, seen, key, must_be_keyed=must_be_keyed)
        if fault is None and line is not None and count == place and head not in (None, line.hash):
            fault = Fault.OTHER_HEAD
        if fault is not None or line is None:
            return msgspec.structs.replace(seen, seq=place, fault=fault)
        last = line
        found = found or line.hash == head
        first_keyed = place if line.keyed and seen.keyed_from is None else seen.keyed_from
        seen = Verdict(place, line.hash, keyed_from=first_keyed)
    if last is None and checked.lines:
        return msgspec.structs.replace(seen, seq=checked.lines, fault=Fault.CUT)
    if count is not None and seen.lines < count:
        return msgspec.structs.replace(seen, seq=seen.lines + 1, fault=Fault.CUT)
    return seen if found else msgspec.structs.replace(seen, seq=seen.lines + 1, fault=Fault.OTHER_HEAD)


def _fault(item: Mapping[str, Any] | None, line: Line | None, place: int, key: bytes | None) -> Fault | None:
    """What is wrong with a line by itself."""
    if line is None:
        return Fault.MISSING if item is None else Fault.UNREADABLE
    if line.seq != place:
        return Fault.MISSING if line.seq > place else Fault.REPEATED
    return Fault.NO_KEY if key is None and line.keyed else None


def _fault_in_chain(line: Line, before: Verdict, key: bytes | None, *, must_be_keyed: bool) -> Fault | None:
    """What is wrong with a line behind those of a verdict, or with the last of these."""
    if key is not None and not line.keyed and must_be_keyed and line.seq != before.lines:
        return Fault.UNKEYED
    if not hmac.compare_digest(line.hash.encode(), hash_of(line, key).encode()):
        return Fault.CHANGED
    if line.seq == before.lines:
        return None if line.hash == before.head else Fault.OTHER_HEAD
    return None if line.previous == before.head else Fault.UNLINKED


def unfinished(lines: Iterable[Line]) -> list[Line]:
    """The begun lines whose action has no line of its end, oldest first."""
    begun: dict[str, Line] = {}
    for line in lines:
        if line.outcome is Outcome.BEGUN:
            begun[line.reference] = line
        else:
            begun.pop(line.reference, None)
    return list(begun.values())
