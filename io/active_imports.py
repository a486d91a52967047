"""What the active imports say of fans, as the scoring workers ask for it."""

import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from ..domain.import_effects import NOTHING_IMPORTED, ImportedValues, imported_values
from ..domain.imports import ImportKind, Pointer
from ..domain.keys import ACTIVE_SK, user_pk
from .ports import Table


class _Active(msgspec.Struct, frozen=True):
    """The pointers as of one read: the sum of their generations, and the versions that are active."""

    generation: int
    versions: tuple[tuple[ImportKind, str], ...]
    read_at: float


class ActiveImports:
    """The active imports of a fan identity table.

    The pointers are remembered for a short time, so a worker learns of an import at most so much later; a fan's values
    are always read. All kinds together cost one read of many keys a batch, and none while nothing is active.
    Thread-safe.

    Every method raises what the table raises.

    Args:
        table: the fan identity table.
        fresh_seconds: how long the pointers are remembered.
        clock: seconds from any start, never going back.
    """

    def __init__(self, table: Table, fresh_seconds: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._known: _Active | None = None
        self._reading = threading.Lock()  # so that of two reads the later one is remembered

    def values(self, users: Sequence[str]) -> tuple[int, list[ImportedValues]]:
        """The generation of the active imports, at most ``fresh_seconds`` old, and each user's values in it.

        Args:
            users: global user ids; may repeat.

        Returns:
            The generation (0 where there never was an import), and values in the users' order.
        """
        active = self._known
        if active is None or self._clock() - active.read_at >= self._fresh_seconds:
            active = self._read()
        if not active.versions:
            return active.generation, [NOTHING_IMPORTED] * len(users)
        of_user = self._values_of(list(dict.fromkeys(users)), active)
        return active.generation, [of_user[user] for user in users]

    def generation(self) -> int:
        """The generation as of now: reads the pointers, and ``values`` answers by them or newer ones from here on."""
        return self._read().generation

    def _read(self) -> _Active:
        with self._reading:
            read_at = self._clock()
            items = self._table.batch_get([(kind.pk, ACTIVE_SK) for kind in ImportKind])
            pointers = [Pointer() if item is None else msgspec.convert(item, Pointer) for item in items]
            self._known = _Active(
                sum(pointer.generation for pointer in pointers),
                tuple(
                    (kind, pointer.import_version)
                    for kind, pointer in zip(ImportKind, pointers, strict=True)
                    if pointer.import_version is not None
                ),
                read_at,
            )
            return self._known

    def _values_of(self, users: Sequence[str], active: _Active) -> dict[str, ImportedValues]:
        keys = [(user_pk(user), kind.fan_sk(version)) for user in users for kind, version in active.versions]
        items = iter(self._table.batch_get(keys))
        return {user: imported_values({kind: next(items) for kind, _ in active.versions}) for user in users}
