"""Made-up fans whose data must turn up nowhere but in the stores, and what finds it wherever it turns up.

A leak is found in any of the forms that text takes on its way: as it is, in another case, escaped for JSON, a URL or
HTML, in hexadecimal, in base64 at any alignment, or hashed without a secret (which anybody can do with a guess).
"""

import base64
import hashlib
import html
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

_SHORTEST = 12
_DIGEST = 16  # digits of a digest that are looked for: what our own shortened ones have


@dataclass(frozen=True)
class Canaries:
    """One fan's data, of this test alone.

    Attributes:
        user: the globalUserId, with what paths and keys could be taken apart at.
        email: also the memberId.
        phone: a number.
        token: a bearer token.
        device: an id.
        ip: an address, of IPv6, so that it is long enough to be no coincidence.
        street: an address, with what is not ASCII.
        secret: a password, as it stands in an address or a setting.
    """

    user: str
    email: str
    phone: str
    token: str
    device: str
    ip: str
    street: str
    secret: str

    @classmethod
    def planted(cls) -> "Canaries":
        """A fan nobody has seen before."""
        name = uuid.uuid4().hex
        return cls(
            user=f"canary/{name[:10]}#fan",
            email=f"canary.{name[:10]}@fans.example.org",
            phone=f"+316{int(name[:12], 16) % 10**9:09d}",
            token=f"eyJhbGciOiJub25lIn0.{name}.c2lnbmF0dXJl",
            device=f"device-{name[8:24]}",
            ip=f"2001:db8:{name[:4]}:{name[4:8]}:{name[8:12]}::{name[12:16]}",
            street=f"{name[:6]} Køpmansgade",
            secret=f"hunter2-{name[:12]}",
        )

    @property
    def all(self) -> Mapping[str, str]:
        """Each by what it is."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def activity(self, number: int, **more: object) -> bytes:
        """An activity of the fan's; its own id says nothing."""
        fields = {
            "activityId": f"activity-{number}",
            "globalUserId": self.user,
            "activityType": "login",
            "occurredAt": 1_718_355_600_000 + number,
            "memberId": self.email,
            "context": {"ipAddress": self.ip, "deviceId": self.device, "userAgent": f"Browser/{self.device}"},
            "attributes": {"authorization": self.token, self.token: 1, "phone": self.phone, "street": self.street},
        }
        return json.dumps(fields | more).encode()

    def leaks(self, text: str | bytes) -> list[str]:
        """What of the fan stands in a text, and in which form: ``email (base64)``."""
        told = text.decode(errors="ignore") if isinstance(text, bytes) else text
        searched = f"{told}\n{told.lower()}"
        return [
            f"{name} ({form})"
            for name, value in self.all.items()
            for form, looked_for in forms(value)
            if looked_for in searched
        ]


def forms(value: str) -> Iterator[tuple[str, str]]:
    """How a text may be written, each with its name; those in which case says nothing in lower case."""
    data = value.encode()
    yield "as it is", value
    yield "lower case", value.lower()
    yield "JSON", json.dumps(value)[1:-1]
    yield "JSON in JSON", json.dumps(json.dumps(value)[1:-1])[1:-1]
    for safe in ("/", ""):
        yield "URL", quote(value, safe=safe)
        yield "URL", quote_plus(value, safe=safe).lower()
    yield "HTML", html.escape(value)
    yield "hexadecimal", data.hex()
    yield "bytes", repr(data)[2:-1]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        # The first digits hold bits of what stands before, the last one of what follows.
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - (1 if (shift + len(data)) % 3 else 0)]
        yield "base64", inner
        yield "base64", inner.translate(str.maketrans("+/", "-_"))
    for algorithm in ("md5", "sha1", "sha256"):
        yield algorithm, hashlib.new(algorithm, data).hexdigest()[:_DIGEST]


class Places:
    """What a program told, by where it told it."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self._told: dict[str, str | bytes] = {}

    def add(self, place: str, told: str | bytes) -> None:
        """Adds to a place; it must hold something, or nothing would be looked at."""
        assert told, f"{place} is empty"
        self._told[f"{place} {len(self._told)}"] = told

    def assert_clean(self) -> None:
        """Fails with the places that tell of the fan, and with what."""
        found = {place: leaks for place, told in self._told.items() if (leaks := self._canaries.leaks(told))}
        assert not found, {place: (leaks, self._line(place, leaks[0])) for place, leaks in found.items()}

    def _line(self, place: str, leak: str) -> str:
        told = self._told[place]
        text = told.decode(errors="ignore") if isinstance(told, bytes) else told
        return next((line[:600] for line in text.splitlines() if leak in self._canaries.leaks(line)), "")
