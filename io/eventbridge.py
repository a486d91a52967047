"""Events onto an EventBridge bus."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import stamina

from ..domain.records import Failure
from .addresses import Address, check_options, int_option
from .aws import AWS_OPTIONS, THROTTLED, client, translated_errors
from .batching import batches
from .errors import BackendUnavailableError

OPTIONS: Final = AWS_OPTIONS | {"deadline"}
"""Options of an ``eventbridge://`` address; ``deadline``: seconds until retries are given up, default 30."""

Event = tuple[str, str, bytes]
"""An event: its source, its detail type, and its detail, a JSON object in UTF-8."""

# EventBridge user guide, PutEvents: what a request takes, and how an entry's size is counted.
_MOST_ENTRIES: Final = 10
_MOST_BYTES: Final = 262_144

_THEIR_FAULT: Final = THROTTLED | {"InternalFailure", "InternalException", "ServiceUnavailable"}

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _NotTakenError(Exception):
    """EventBridge did not take some entries now."""


class EventBridgeBus:
    """A bus, ``eventbridge://name``; made without connecting."""

    def __init__(self, address: Address, setting: str) -> None:
        check_options(address, setting, OPTIONS)
        self._address = address
        self._setting = setting
        self._deadline_s = int_option(address, setting, "deadline", 30, least=1)

    @classmethod
    def of(cls, address: Address, setting: str) -> "EventBridgeBus":
        """The bus of an address ``eventbridge://bus?region&endpoint&deadline``.

        Raises:
            UsageError: an option is wrong.
        """
        return cls(address, setting)

    def check(self) -> None:
        """Connects once.

        Raises:
            UsageError: the bus does not exist; credentials or region are missing or refused.
            BackendUnavailableError: EventBridge is out of reach.
        """
        events = client("events", self._address, self._setting)
        with translated_errors(self._setting, self._address):
            events.describe_event_bus(Name=self._address.target)

    def put_events(self, entries: Sequence[Event]) -> list[Failure | None]:
        """Puts events in batches; of a partly failed batch only the failed entries are put again.

        Returns:
            For each, None or why it is not on the bus: ``too_large``, ``unsendable`` (its detail is no JSON object),
            ``refused`` with EventBridge's code, or ``unavailable`` (may be put again) where EventBridge answered until
            the deadline that it cannot take it now.

        Raises:
            UsageError: access is denied.
            BackendUnavailableError: EventBridge is out of reach, after retries; batches before may have been put.
        """
        outcomes: list[Failure | None] = [_refusal(event) for event in entries]
        sendable = [index for index, failure in enumerate(outcomes) if failure is None]
        for batch in batches(sendable, lambda index: _size(entries[index]), _MOST_ENTRIES, _MOST_BYTES):
            for index, failure in self._put(entries, batch).items():
                outcomes[index] = failure
        return outcomes

    def _put(self, entries: Sequence[Event], batch: Sequence[int]) -> dict[int, Failure]:
        failures: dict[int, Failure] = {}
        pending = list(batch)
        tries = 0
        try:
            for attempt in stamina.retry_context(
                on=(_NotTakenError, BackendUnavailableError),
                attempts=None,
                timeout=self._deadline_s,
                wait_max=5.0,
                wait_jitter=0.5,
            ):
                with attempt:
                    tries += 1
                    pending = self._try(entries, pending, failures)
                    if pending:
                        raise _NotTakenError
        except _NotTakenError:
            for index in pending:
                failures[index] = Failure(
                    "unavailable", "EventBridge cannot take the event now", retryable=True, attempts=tries
                )
        return failures

    def _try(self, entries: Sequence[Event], pending: Sequence[int], failures: dict[int, Failure]) -> list[int]:
        events = client("events", self._address, self._setting)
        with translated_errors(self._setting, self._address):
            response = events.put_events(Entries=[self._wire(entries[index]) for index in pending])
        again: list[int] = []
        for index, answer in zip(pending, response["Entries"], strict=True):
            code = answer.get("ErrorCode")
            if code in _THEIR_FAULT:
                again.append(index)
            elif code:
                failures[index] = Failure("refused", str(code))
        return again

    def _wire(self, event: Event) -> dict[str, Any]:
        source, detail_type, detail = event
        return {
            "EventBusName": self._address.target,
            "Source": source,
            "DetailType": detail_type,
            "Detail": detail.decode(),
        }


def _size(event: Event) -> int:
    source, detail_type, detail = event
    return len(source.encode()) + len(detail_type.encode()) + len(detail)


def _refusal(event: Event) -> Failure | None:
    try:
        _object.decode(event[2])
        event[2].decode()
        size = _size(event)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return Failure("unsendable", "the event's detail is not a JSON object in UTF-8")
    if size > _MOST_BYTES:
        return Failure("too_large", f"the event has {size} bytes; EventBridge takes {_MOST_BYTES}")
    return None
