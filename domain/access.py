"""Who asks, and what they may see."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

import msgspec


class CallerKind(StrEnum):
    """What kind of caller asks."""

    NOBODY = "nobody"
    USER = "user"
    SERVICE = "service"
    API_KEY = "api_key"


READ_ANY_SCOPE = "fanscore:read"
"""The scope with which a service or an API key may read any fan's scores."""

CONSOLE_READ_SCOPE = "console:read"
"""The scope of operators: whoever has it may look at the console."""

CONSOLE_ACT_SCOPE = "console:act"
"""The scope with which an operator may also act: redrive, roll back, switch flags, look into dead letters."""

OPERATOR_SCOPES = frozenset({CONSOLE_READ_SCOPE, CONSOLE_ACT_SCOPE})
"""The scopes that count in a person's token too, not in those of services and API keys alone."""


class Identity(msgspec.Struct, frozen=True):
    """A caller, after authentication; what AppSync calls ``ctx.identity``.

    Attributes:
        kind: how the caller was identified.
        subject: of a user the globalUserId; of a service its client id; of an API key its name, never the key.
        member_id: of a user, where the token says it.
        scopes: what the issuer, or the API key's file, allows.
        claims: of the token, as verified; empty for others.
        source_ip: addresses the request came from, the nearest first.
    """

    kind: CallerKind = CallerKind.NOBODY
    subject: str = ""
    member_id: str | None = None
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = {}
    source_ip: tuple[str, ...] = ()

    @property
    def user_id(self) -> str | None:
        """The globalUserId of a signed-in user; None for every other caller."""
        return self.subject if self.kind is CallerKind.USER else None

    @property
    def is_known(self) -> bool:
        """Whether the caller showed a valid token or key."""
        return self.kind is not CallerKind.NOBODY

    @property
    def reads_any_fan(self) -> bool:
        """Whether the caller may read any fan's scores: a service or an API key with the scope."""
        return self.kind in (CallerKind.SERVICE, CallerKind.API_KEY) and READ_ANY_SCOPE in self.scopes

    @property
    def reads_console(self) -> bool:
        """Whether the caller may look at the operators' console.

        A signed-in person is an operator by the scope alone, which only the issuer gives; a fan's token has none.
        """
        return self.is_known and CONSOLE_READ_SCOPE in self.scopes

    @property
    def acts_in_console(self) -> bool:
        """Whether the caller may act in the console: to look at it alone is not enough, and is needed too."""
        return self.reads_console and CONSOLE_ACT_SCOPE in self.scopes

    def may_read(self, global_user_id: str) -> bool:
        """Whether the caller may read this fan's scores: their own, or any. Ids are compared as they stand."""
        return self.reads_any_fan or (self.user_id is not None and self.user_id == global_user_id)


NOBODY = Identity()


def scopes_of(text: str, audiences: Collection[str]) -> frozenset[str]:
    """The scopes of a token's ``scope`` (RFC 8693, 4.2), separated by spaces.

    Cognito writes ``<audience>/name``: one of ours is ``name``; another API's grants nothing here.

    >>> sorted(scopes_of("https://fans/fanscore:read https://other/fanscore:read", ["https://fans"]))
    ['fanscore:read', 'https://other/fanscore:read']
    """
    scopes: set[str] = set()
    for scope in text.split(" "):
        audience, _, name = scope.rpartition("/")
        scopes.add(name if audience in audiences else scope)
    return frozenset(scopes - {""})
