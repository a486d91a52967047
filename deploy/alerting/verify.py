"""How who receives checkLiveness's notices makes sure that they are: stands alone, and imports nothing of ours.

Copy ``is_genuine`` into the receiver. It is given the body as it came, before any parsing.
"""

import hashlib
import hmac
import time

MOST_SECONDS = 300
"""A notice older than this is somebody's repetition."""


def is_genuine(body: bytes, signature: str, secret: str, now: float | None = None) -> bool:
    """Whether a notice was signed with the secret, lately.

    Args:
        body: of the request.
        signature: its header ``X-Fan-Identity-Signature``: ``t=<epoch seconds>,v1=<hex>``.
        secret: as in ``FAN_IDENTITY_ALERT_SECRET``.
        now: epoch seconds; the clock's where None.
    """
    stamp, _, digest = signature.partition(",v1=")
    at = stamp.removeprefix("t=")
    if not (at.isascii() and at.isdigit() and len(at) <= len("9999999999")):
        return False
    expected = hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    recent = abs((time.time() if now is None else now) - int(at)) <= MOST_SECONDS
    return recent and hmac.compare_digest(expected.encode(), digest.encode())
