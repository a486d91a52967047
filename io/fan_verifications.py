"""What identity verifications say of fans: written by handleEvent, asked for by the scoring workers."""

from collections.abc import Sequence

import msgspec

from ..domain.keys import user_pk
from ..domain.records import Batch, Failure
from ..domain.verification import (
    NOTHING_KNOWN,
    RESULT_PREFIX,
    VERIFIED_SK,
    Known,
    Verification,
    known_of_item,
    known_of_results,
    newest_verification_item,
    verification_of,
)
from .ports import Item, Table
from .steps import Profiled


class FanVerifications:
    """Reads the verification table. Remembers nothing, so that a result counts in the very next score.

    Args:
        table: the verification table.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def known(self, moments: Sequence[tuple[str, int]]) -> list[Known]:
        """For each fan and moment what the fan's results say; see ``verification.deciding``.

        One read of many keys for all fans. Only where a moment is older than the results an item keeps are all of the
        fan's results read, some fans at once.

        Args:
            moments: global user id and epoch milliseconds; users may repeat.

        Raises:
            BackendUnavailableError: the table is out of reach.
        """
        users = list(dict.fromkeys(user for user, _ in moments))
        read = self._table.batch_get([(user_pk(user), VERIFIED_SK) for user in users])
        items = {user: item for user, item in zip(users, read, strict=True) if item is not None}
        if not items:
            return [NOTHING_KNOWN] * len(moments)
        found: list[Known | None] = [
            known_of_item(items[user], time_ms) if user in items else NOTHING_KNOWN for user, time_ms in moments
        ]
        unsaid = list(dict.fromkeys(user for (user, _), known in zip(moments, found, strict=True) if known is None))
        results = {
            user: [verification_of(item) for item in own]
            for user, own in zip(unsaid, _results(self._table, unsaid), strict=True)
        }
        return [
            known_of_results(results[user], time_ms) if known is None else known
            for (user, time_ms), known in zip(moments, found, strict=True)
        ]


def write_newest(table: Table, users: Sequence[str]) -> dict[str, Verification | Failure]:
    """Brings what is kept of users up to their stored results.

    Call it after a result was written. Of all that write at once, the last one's read sees every result, and the item
    of more results wins; so nothing is lost, and no order or repetition changes what stands in the end.

    Args:
        table: the verification table.
        users: global user ids, each once.

    Returns:
        By user the newest result, or why the table will never take the item. Users without results are left out.

    Raises:
        BackendUnavailableError: the table is out of reach.
    """
    stored = {user: items for user, items in zip(users, _results(table, users), strict=True) if items}
    written = table.put_if_newer([newest_verification_item(items) for items in stored.values()])
    return {
        user: outcome if isinstance(outcome, Failure) else max(map(verification_of, items), key=_version)
        for (user, items), outcome in zip(stored.items(), written, strict=True)
    }


def newest_of(table: Table, users: Sequence[str]) -> dict[str, Verification]:
    """By user the newest result stored; users without one are left out.

    Raises:
        BackendUnavailableError: the table is out of reach.
    """
    items = table.batch_get([(user_pk(user), VERIFIED_SK) for user in users])
    return {user: verification_of(item) for user, item in zip(users, items, strict=True) if item is not None}


def _results(table: Table, users: Sequence[str]) -> list[list[Item]]:
    return table.query_many([user_pk(user) for user in users], RESULT_PREFIX) if users else []


def _version(verification: Verification) -> str:
    return verification.version


def add_verifications(batch: Batch[Profiled], verifications: FanVerifications | None) -> Batch[Profiled]:
    """Adds to each message what identity checks say of its user as of the message's activity.

    Raises:
        BackendUnavailableError: the table is out of reach.
    """
    if verifications is None or not batch.items:
        return batch
    moments = [(profiled.message.global_user_id, profiled.message.occurred_at) for profiled in batch.items]
    found = verifications.known(moments)
    if found.count(NOTHING_KNOWN) == len(found):
        return batch
    return batch.with_items(
        [
            msgspec.structs.replace(profiled, verification=known.verification, results=known.results)
            for profiled, known in zip(batch.items, found, strict=True)
        ]
    )
