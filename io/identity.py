"""The Identity Service: it is told of identity verifications."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from ..domain.activity import format_time_ms
from ..domain.records import Failure
from ..domain.verification import Verification
from .caller import RefusedError, TransientError
from .http_json import JsonApi

_CONFLICT: Final = 409


@dataclass(frozen=True)
class IdentityClient:
    """Sends ``POST <address>/verifications``. Pickles; holds no connection."""

    api: JsonApi

    @classmethod
    def of(cls, text: str, setting: str) -> "IdentityClient":
        """The service of an address ``https://identity/api``; options are those of ``HTTP_OPTIONS``.

        A bearer token comes from ``FAN_IDENTITY_IDENTITY_TOKEN``.

        Raises:
            UsageError: naming what is wrong with the address.
        """
        return cls(JsonApi.of(text, setting, "identity"))

    def tell_many(
        self,
        verifications: Sequence[Verification],
        correlation_id: str = "",
        after: Mapping[str, Verification] = MappingProxyType({}),
    ) -> list[Failure | None]:
        """Tells of verifications, those of one user in their order, users side by side.

        At least once: a retry carries the same ``Idempotency-Key``, so the service can tell it from a second event.
        Where telling fails for now, the user's later ones fail with it: a new status never arrives before an older.

        Args:
            verifications: what to tell.
            correlation_id: of the batch, for the service's log.
            after: by user an older one that was told after what is to be told now; it is told as an event of its own.

        Returns:
            For each, None where the service has it, or a Failure: ``identity_unavailable`` (retryable) or
            ``identity_refused``.
        """
        outcomes: list[Failure | None] = [None] * len(verifications)
        queues: dict[str, list[int]] = {}
        for number, verification in enumerate(verifications):
            queues.setdefault(verification.global_user_id, []).append(number)

        async def tell(verification: Verification) -> None:
            await self._tell(verification, correlation_id, after.get(verification.global_user_id))

        while queues:
            heads = [numbers.pop(0) for numbers in queues.values()]
            told = self.api.caller.map([verifications[number] for number in heads], tell)
            for user, number, outcome in zip(list(queues), heads, told, strict=True):
                outcomes[number] = outcome
                if outcome is not None and outcome.retryable:
                    for later in queues[user]:
                        outcomes[later] = outcome
                    queues[user] = []
                if not queues[user]:
                    del queues[user]
        return outcomes

    async def _tell(self, verification: Verification, correlation_id: str, after: Verification | None) -> None:
        body = msgspec.json.encode(
            {
                "globalUserId": verification.global_user_id,
                "verificationId": verification.verification_id,
                "status": verification.status.value,
                "occurredAt": format_time_ms(verification.time_ms),
            }
        )
        headers = {"Idempotency-Key": idempotency_key(verification, after)}
        try:
            await self.api.post("/verifications", body, correlation_id, headers)
        except RefusedError as error:
            # The same key is at work elsewhere (draft-ietf-httpapi-idempotency-key-header, 2.6): its end is soon known.
            if error.status == _CONFLICT:
                raise TransientError(str(error), status=_CONFLICT) from None
            raise


def idempotency_key(verification: Verification, after: Verification | None = None) -> str:
    """Names what is told, the same for every attempt (32 hex digits).

    Told once more after an older one, it is another event: under the first key the service would not hear it.
    """
    digest = hashlib.sha256()
    for told in (verification,) if after is None else (verification, after):
        for part in (told.global_user_id, told.verification_id, told.status.value, str(told.time_ms)):
            data = part.encode()
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:32]
