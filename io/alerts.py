"""The webhook that is told of outages: one POST of JSON each, signed where there is a secret.

Its URL is often all that is needed to post there, so it is a secret: it comes from the environment and is never shown.
Sending is bounded in time and in what is read of the answer, follows no redirect, and goes to no link-local address,
where clouds keep their credentials.
"""

import hashlib
import hmac
import ipaddress
import os
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from .errors import BackendUnavailableError, FanIdentityError, UsageError
from .one_request import Ip, answered_status
from .time_limits import within

WEBHOOK_ENV: Final = "FAN_IDENTITY_ALERT_WEBHOOK"
"""The variable with the webhook's URL."""

SECRET_ENV: Final = "FAN_IDENTITY_ALERT_SECRET"  # noqa: S105 - its name
"""The variable with the key notices are signed with."""

SIGNATURE_HEADER: Final = "X-Fan-Identity-Signature"

_SECONDS: Final = 5.0
_OK: Final = range(200, 300)
_METADATA_V6: Final = ipaddress.ip_address("fd00:ec2::254")


class Webhook:
    """Posts notices to the URL of ``FAN_IDENTITY_ALERT_WEBHOOK``.

    Args:
        url: ``https://…``; ``http://`` only to this machine or a private network.
        secret: signs notices; None for no signature.

    Raises:
        UsageError: the URL is none of these.
    """

    def __init__(self, url: str, secret: str | None = None) -> None:
        if not _is_http(url):
            raise UsageError(f"{WEBHOOK_ENV}: an address https://host/path is needed")
        self._url = url
        self._is_plain = not url.lower().startswith("https:")
        self._secret = secret

    def __repr__(self) -> str:
        """Without the URL."""
        return "Webhook()"

    @classmethod
    def from_environment(cls) -> "Webhook | None":
        """The webhook of the environment, or None.

        Raises:
            UsageError: its URL is wrong.
        """
        url = os.environ.get(WEBHOOK_ENV, "").strip()
        return cls(url, os.environ.get(SECRET_ENV) or None) if url else None

    def send(self, notice: Mapping[str, Any]) -> None:
        """Posts a notice; takes five seconds at most.

        Raises:
            BackendUnavailableError: it did not arrive, or nobody knows: send it again, its ``dedup_key`` is the same.
        """
        body = msgspec.json.encode(notice)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "fan-identity checkLiveness",
            **({} if self._secret is None else {SIGNATURE_HEADER: signature(body, self._secret, int(time.time()))}),
        }

        def post() -> int:
            return answered_status(self._url, _SECONDS, method="POST", body=body, headers=headers, refuse=self._refusal)

        try:
            status = within(_SECONDS, post, "the webhook")
        except FanIdentityError as error:
            raise BackendUnavailableError(f"the webhook {str(error).removeprefix('the webhook: ')}") from None
        if status not in _OK:
            followed = " (a redirect, which is not followed)" if status // 100 == 3 else ""  # noqa: PLR2004
            raise BackendUnavailableError(f"the webhook answers {status}{followed}")

    def _refusal(self, ip: Ip) -> str | None:
        if ip.is_link_local or ip == _METADATA_V6 or ip.is_multicast or ip.is_unspecified:
            return "leads to an address alerts are not sent to"
        if self._is_plain and not ip.is_private:
            return "is not encrypted and leads out of this network; use https"
        return None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    del port  # read to be checked
    fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    return fits and url.isascii() and url.isprintable() and " " not in url


def signature(body: bytes, secret: str, at: int) -> str:
    """``t=<epoch seconds>,v1=<hex>``: the HMAC-SHA256 of ``<epoch seconds>.<body>``.

    Who receives it computes the same, compares in constant time, and refuses what is older than some minutes.
    """
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
