"""Keys: how users, scores and messages are named in tables, queues and caches.

A user id is data: whatever it contains, two different ids never share a key, and one id never reaches another's key.
"""

import hashlib
import re

from .activity import MIN_EPOCH_MS, format_time_ms

_MAX_ID_BYTES = 1_024  # DynamoDB allows 2,048 bytes in a partition key, prefix included
_HASHED = "sha256:"
_SQS_GROUP_ID = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_HASHED_GROUP = "sha256-"
_LOGGABLE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
LATEST_SK = "LATEST"
MEMBER_SCORE_SK = "SCORE"
BON_IMPORT_PK = "IMPORT#botOrNot"
ACTIVE_SK = "ACTIVE"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def user_token(global_user_id: str) -> str:
    """Names a user inside a key: the id itself, or ``sha256:…`` where it is over 1,024 bytes.

    An id that itself begins with ``sha256:`` is hashed too, so that no id can pose as another's hash.
    """
    if len(global_user_id.encode()) > _MAX_ID_BYTES or global_user_id.startswith(_HASHED):
        return _HASHED + _sha256(global_user_id)
    return global_user_id


def user_pk(global_user_id: str) -> str:
    """The partition key of a user's items: ``USER#<globalUserId>``."""
    return "USER#" + user_token(global_user_id)


def member_pk(member_id: str) -> str:
    """The partition key of a member's items in the account fan score table: ``MEMBER#<memberId>``."""
    return "MEMBER#" + user_token(member_id)


def bon_sk(version: str) -> str:
    """The sort key of a user's bot-or-not score in an import: ``BON#<version>``."""
    return f"BON#{version}"


def score_sk(time_ms: int, activity_id: str) -> str:
    """The sort key of the score an activity caused: its time (UTC, fixed width), then a hash of its id.

    Text order is time order, and two activities in one millisecond keep both scores.
    """
    return f"SCORE#{format_time_ms(time_ms)}#{_sha256(activity_id)[:16]}"


def verification_sk(time_ms: int, name: str) -> str:
    """The sort key of a verification result: its time (UTC, fixed width), then a hash of its name."""
    return f"VERIFICATION#{format_time_ms(time_ms)}#{_sha256(name)[:16]}"


def arm_cache_key(global_user_id: str) -> str:
    """The key of a user's entry in the ARM cache: ``user:{globalUserId}``."""
    return "user:" + user_token(global_user_id)


def causal_version(time_ms: int, activity_id: str, generation: int = 0, results: int = 0) -> str:
    """Orders what activities caused by (time, activityId), then by what was known of the user: greater is newer.

    Known are the imports it was made under, then the results of the user's identity checks.

    Fixed width, so that text order is time order.

    Args:
        time_ms: when the activity happened, epoch milliseconds.
        activity_id: its id.
        generation: how often the pointers to the active imports were moved, all kinds together. 0 adds nothing to the
            text, so versions from before the first import stay what they are.
        results: how many results of identity checks were known as of the activity: this grows with each that comes
            late, whatever it says. 0 adds nothing to the text.
    """
    # An id's own NUL is made greater than the one that ends an id, so that no id reaches into the generation.
    name = activity_id.replace("\0", "\0\U0010ffff") if "\0" in activity_id else activity_id
    suffix = f"\0{generation:012d}" if generation or results else ""
    suffix += f"{results:012d}" if results else ""
    return f"{time_ms - MIN_EPOCH_MS:015d}#{name}{suffix}"


def deduplication_id(worker: str, activity_id: str) -> str:
    """The FIFO deduplication id of an activity: the same activity sent twice by a worker is one message."""
    return _sha256(f"{worker}\0{activity_id}")[:32]


def fifo_group_id(global_user_id: str) -> str:
    """The FIFO message group of a user: the id itself, or its hash where SQS's alphabet or 128 characters forbid it.

    Source: SQS developer guide, MessageGroupId.
    """
    if _SQS_GROUP_ID.fullmatch(global_user_id) and not global_user_id.startswith(_HASHED_GROUP):
        return global_user_id
    return _HASHED_GROUP + _sha256(global_user_id)


def loggable_id(activity_id: str) -> str:
    """An activity id as it may stand in a log: itself where it is plain, else a hash.

    Ids come from outside and may hold an e-mail address or control characters.
    """
    if _LOGGABLE_ID.fullmatch(activity_id):
        return activity_id
    return f"sha256:{_sha256(activity_id)[:16]}"
