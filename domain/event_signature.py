"""Signatures of IDV results: a result that did not come from the provider is told from one that did.

A signature is ``v1=`` and the HMAC-SHA256, in lower-case hex, of the signed text under a secret that provider and we
share. The signed text is a line ``v1``, then for each signed field in their order a line with the number of its bytes
in UTF-8, a colon and the field; every line ends with LF. So no two results have one text, whatever is in their ids.
Fields stand in it as in the event: ``status`` in its own case, ``occurredAt`` as text or as the digits of a number.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from .events import RefusedEventError

SIGNED_FIELDS: Final = ("verificationId", "globalUserId", "status", "occurredAt")
"""The fields a signature covers, in their order."""

_SCHEME: Final = "v1"


def signed_text(fields: Sequence[str | int]) -> bytes:
    r"""The text that is signed.

    >>> signed_text(["v-1", "fan-1", "PASSED", 1795780800000])
    b'v1\n3:v-1\n5:fan-1\n6:PASSED\n13:1795780800000\n'
    """
    parts = [str(field).encode() for field in fields]
    return b"v1\n" + b"".join(b"%d:%b\n" % (len(part), part) for part in parts)


def signature_of(fields: Sequence[str | int], secret: str) -> str:
    """The signature of a result's ``SIGNED_FIELDS``, as it stands in the event: ``v1=<64 hex digits>``."""
    return f"{_SCHEME}={hmac.new(secret.encode(), signed_text(fields), hashlib.sha256).hexdigest()}"


def check_signature(signature: str | None, fields: Sequence[str | int | float | None], secrets: Sequence[str]) -> None:
    """Holds a result's signature against the secrets that are valid; compares in constant time.

    Args:
        signature: as it came; None for none.
        fields: the values of ``SIGNED_FIELDS`` as they came. One that is missing, or a number with a fraction, which
            two programs may write in two ways, cannot be signed.
        secrets: any of them may have made it, so that a secret can be changed while results are under way.

    Raises:
        RefusedEventError: ``forged``.
    """
    if signature is None:
        raise RefusedEventError("forged", "it is not signed")
    signable = [field for field in fields if isinstance(field, str | int)]
    if len(signable) < len(fields):
        raise RefusedEventError("forged", "occurredAt is no text or whole number, so it cannot be signed")
    # Every secret is tried, so that the time taken does not tell which one is in use.
    given = signature.encode()
    matches = [hmac.compare_digest(signature_of(signable, secret).encode(), given) for secret in secrets]
    if not any(matches):
        raise RefusedEventError("forged", "the signature is not of this result")
