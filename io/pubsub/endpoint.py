"""A topic or subscription as the other modules see it: its names, clients and errors."""

import os
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import grpc
import stamina
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from ..addresses import Address, int_option
from ..errors import BackendUnavailableError, UsageError

_TARGET: Final = re.compile(r"([a-z][a-z0-9:.\-]{1,62})/([A-Za-z][A-Za-z0-9\-_.~+%]{2,254})")
_REFUSED: Final = (exceptions.Unauthorized, exceptions.Forbidden)
_GOOGLES: Final = ".googleapis.com"
_CHANNEL: Final = (
    # gRPC's own limit of 4 MB is below what one pull may bring: Pub/Sub's messages have up to 10 MB.
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 16 << 20),
)


class Endpoint:
    """A ``pubsub://project/name`` address; the name is a topic's where one sends, a subscription's where one receives.

    Connects when a client is first used.

    Args:
        address: with options ``endpoint`` and ``deadline``.
        setting: where it came from, for errors.

    Raises:
        UsageError: the address is not of that form.
    """

    def __init__(self, address: Address, setting: str) -> None:
        match = _TARGET.fullmatch(address.target)
        if match is None:
            raise UsageError(
                f"--{setting}: write pubsub://project/topic to send, pubsub://project/subscription to receive"
            )
        self.address = address
        self.setting = setting
        self.shown = f"pubsub://{address.target}"
        self.topic = f"projects/{match[1]}/topics/{match[2]}"
        self.subscription = f"projects/{match[1]}/subscriptions/{match[2]}"
        self.deadline_s = int_option(address, setting, "deadline", 30, least=1)

    @property
    def publisher(self) -> Any:
        """The client that publishes; one a process and endpoint."""
        with self.translated_errors():
            return _publisher(self._host)

    @property
    def subscriber(self) -> Any:
        """The client that pulls; one a process and endpoint."""
        with self.translated_errors():
            return _subscriber(self._host)

    @property
    def _host(self) -> str | None:
        return self.address.options.get("endpoint") or os.environ.get("PUBSUB_EMULATOR_HOST") or None

    def check_once(self, seconds: float) -> None:
        """Asks once for a topic of the name, then for a subscription, on a connection of its own.

        A channel that lost its server waits longer and longer before it connects again; whether the server is there
        now, only a fresh one tells.

        Raises:
            UsageError: there is neither, or no access.
            BackendUnavailableError: no answer within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        try:
            self._ask_fresh(PublisherClient, PublisherGrpcTransport, "get_topic", deadline, topic=self.topic)
        except UsageError:
            kinds = SubscriberClient, SubscriberGrpcTransport
            self._ask_fresh(*kinds, "get_subscription", deadline, subscription=self.subscription)

    def _ask_fresh(self, client: Any, transport: Any, method: str, deadline: float, **asked: str) -> None:
        with self.translated_errors():
            made = _client(client, transport, self._host)
            try:
                getattr(made, method)(**asked, retry=None, timeout=max(0.1, deadline - time.monotonic()))
            finally:
                made.transport.close()

    def retrying(self) -> Any:
        """Retries of stamina: exponential backoff with jitter until the deadline, for BackendUnavailableError."""
        return stamina.retry_context(
            on=BackendUnavailableError, attempts=None, timeout=self.deadline_s, wait_max=5.0, wait_jitter=0.5
        )

    @contextmanager
    def translated_errors(self) -> Generator[None]:
        """Turns what Google's clients raise in the block into errors of ours; InvalidArgument passes.

        Raises:
            UsageError: no such topic or subscription, no credentials, or refused ones.
            BackendUnavailableError: anything else.
        """
        try:
            yield
        except exceptions.InvalidArgument:
            raise
        except exceptions.NotFound:
            raise UsageError(f"--{self.setting}: {self.shown} does not exist; create it or correct the name") from None
        except _REFUSED as error:
            raise UsageError(
                f"--{self.setting}: the Google Cloud credentials in use are refused for {self.shown} "
                f"({type(error).__name__})"
            ) from None
        except DefaultCredentialsError:
            raise UsageError(
                f"--{self.setting}: no Google Cloud credentials for {self.shown}; set GOOGLE_APPLICATION_CREDENTIALS, "
                "or run where a service account is given"
            ) from None
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            raise BackendUnavailableError(
                f"--{self.setting}: {self.shown} is out of reach ({type(error).__name__})"
            ) from None


def _is_googles(host: str) -> bool:
    return host.partition(":")[0].endswith(_GOOGLES)


@cache
def _publisher(host: str | None) -> Any:
    return _client(PublisherClient, PublisherGrpcTransport, host)


@cache
def _subscriber(host: str | None) -> Any:
    return _client(SubscriberClient, SubscriberGrpcTransport, host)


def _client(client: Any, transport: Any, host: str | None) -> Any:
    if host is None or _is_googles(host):
        return client(client_options=ClientOptions(api_endpoint=host))
    channel: Any = grpc.insecure_channel(host, options=_CHANNEL)
    return client(transport=transport(channel=channel))
