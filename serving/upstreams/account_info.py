"""The account service: who a signed-in fan is."""

from dataclasses import dataclass

import msgspec

from ...io.errors import UnavailableError
from ..data_sources import AccountInfo
from .upstream import Text, UnsafeIdError, Upstream, path_of


class _Account(msgspec.Struct, rename="camel"):
    global_user_id: str
    member_id: Text | None = None
    email: Text | None = None


@dataclass(frozen=True)
class AccountInfoClient:
    """Reads ``GET <address>/accounts/<globalUserId>``; implements ``data_sources.Accounts``."""

    upstream: Upstream

    @classmethod
    def of(cls, text: str, setting: str, deadline_seconds: float) -> "AccountInfoClient":
        """The service of an address. Arguments and errors as ``Upstream.of``."""
        return cls(Upstream.of(text, setting, deadline_seconds, source="accounts"))

    async def info(self, global_user_id: str) -> AccountInfo | None:
        """The account, or None where there is none.

        Raises:
            UnavailableError: there is no answer that can be used; another fan's account is none.
        """
        try:
            path = path_of("accounts", global_user_id)
        except UnsafeIdError:
            return None
        account = await self.upstream.get(path, _Account)
        if account is None:
            return None
        if account.global_user_id != global_user_id:
            raise UnavailableError(self.upstream.source, "the answer is another fan's account")
        return AccountInfo(account.global_user_id, account.member_id, account.email)
