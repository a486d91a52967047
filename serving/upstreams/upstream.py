"""What the clients share: an address, one question under limits, and an answer that is checked before it is used."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, TypeVar

import msgspec

from ...io.accounts import path_segment
from ...io.asking import answered, waiting_limits
from ...io.caller import RefusedError
from ...io.http_json import JsonApi

Text = Annotated[str, msgspec.Meta(max_length=1_000)]
"""A text of an answer; a longer one is no name and no date."""

Kind = TypeVar("Kind", bound=msgspec.Struct)
T = TypeVar("T")

_NOT_FOUND: Final = 404


class UnsafeIdError(ValueError):
    """An id that no path can carry: nothing can have it."""


@dataclass(frozen=True)
class Upstream:
    """A service at ``https://host/path``.

    A question has ``deadline_seconds``, two attempts, and makes 1.5 calls on average at most. What the answer holds
    besides the fields asked for is dropped. A token comes from ``FAN_IDENTITY_<SETTING>_TOKEN``.

    Attributes:
        api: the service; it holds no connection.
        source: its name in errors and in an answer's extensions.
    """

    api: JsonApi
    source: str

    @classmethod
    def of(cls, text: str, setting: str, deadline_seconds: float, *, source: str | None = None) -> "Upstream":
        """The service of an address; options are those of ``io.http_json.HTTP_OPTIONS``.

        Args:
            text: the address.
            setting: where it came from.
            deadline_seconds: of a question; an option of the address can only shorten it.
            source: its name in errors, the setting's where it has the same.

        Raises:
            UsageError: naming what is wrong with the address.
        """
        api = JsonApi.of(text, setting, setting)
        deadline = min(deadline_seconds, api.limits.deadline_seconds)
        limits = waiting_limits(deadline, in_flight=api.limits.in_flight)
        return cls(
            replace(api, limits=replace(limits, attempt_seconds=min(deadline, api.limits.attempt_seconds))),
            source or setting,
        )

    async def get(self, path: str, kind: type[Kind]) -> Kind | None:
        """GETs an object.

        Args:
            path: after the address, made by ``path_of``.
            kind: what it must be.

        Returns:
            The object, or None where the service knows of none (404).

        Raises:
            UnavailableError: no answer in time, a refusal, or an answer that is none of ``kind``.
        """
        return await self._asked(lambda: self.api.get(path, uuid.uuid4().hex), kind)

    async def post(self, path: str, asked: Any, kind: type[Kind], *, key: str | None = None) -> Kind | None:
        """POSTs what is asked for, in the body; as ``get`` otherwise.

        Args:
            path: after the address.
            asked: JSON.
            kind: what the answer must be.
            key: sent as ``Idempotency-Key``, so that a repeated request has one effect.
        """
        body = msgspec.json.encode(asked)
        headers = {} if key is None else {"Idempotency-Key": key}

        async def post() -> Any:
            return self.api.decode(await self.api.post(path, body, uuid.uuid4().hex, headers))

        return await self._asked(post, kind)

    async def _asked(self, ask: Callable[[], Awaitable[Any]], kind: type[Kind]) -> Kind | None:
        async def attempt() -> Kind | None:
            try:
                answer = await ask()
            except RefusedError as error:
                if error.status == _NOT_FOUND:
                    return None
                raise
            try:
                return msgspec.convert(answer, kind)
            except msgspec.ValidationError as error:  # names fields and types, never values
                raise self.api.invalid(f"the answer is not as agreed: {error}") from None

        return await answered(self.source, self.api.caller, attempt)


def path_of(*parts: str) -> str:
    """A path of segments: ids are percent-encoded, whatever they contain.

    Raises:
        UnsafeIdError: one cannot be a segment (``..``, over 6 kB).

    >>> path_of("events", "a/b")
    '/events/a%2Fb'
    """
    segments = [path_segment(part) for part in parts]
    known = [segment for segment in segments if segment is not None]
    if len(known) != len(segments):
        raise UnsafeIdError
    return "".join(f"/{segment}" for segment in known)
