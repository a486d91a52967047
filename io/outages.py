"""What was told of outages, kept so that each is told once: by whatever checker, over restarts, kills and outages.

It is kept in the operations table, and in a local file where that table is itself what is down. Each write has a
revision one above the one read, and ``Table.put_if_newer`` refuses the later of two with the same: two checkers at once
agree on who tells. What a file took in is moved to the table once that answers again.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ..domain.liveness import OUTAGE_PK, Outage, newest
from .errors import BackendUnavailableError, FanIdentityError
from .ports import Table
from .sqlite.store import SqliteStore
from .sqlite.table import SqliteTable
from .time_limits import within

_TABLE_NAME: Final = "operations"


class OutageBook:
    """Outages by part, in the best place that answers.

    Args:
        table: the operations table, made when first needed; None where none is named.
        local: the file that stands in for it.
        seconds: what the table has for an answer.
        say: told, once a round, where neither place can be used.
    """

    def __init__(
        self, table: Callable[[], Table] | None, local: Path, seconds: float, say: Callable[[str], None]
    ) -> None:
        self._open = table
        self._local = local
        self._seconds = seconds
        self._say = say
        self._known: dict[str, Outage] = {}
        self._reached = False

    def read(self, *, reachable: bool = True) -> dict[str, Outage]:
        """The newest known of each part, over all places; the table's and the file's are made to agree.

        Args:
            reachable: False where the table is known to be down: then nobody waits for it.
        """
        in_table, in_file = dict[str, Outage](), self._read_local()
        self._reached = False
        if self._open is not None and reachable:
            try:
                in_table = self._with_table(_read)
                self._reached = True
            except FanIdentityError:
                pass  # its own probe tells
        self._known = newest(in_table, in_file, self._known)
        if self._reached:
            self._move(in_table)
        return dict(self._known)

    def write(self, outage: Outage) -> bool:
        """Writes what is known of a part, unless somebody wrote meanwhile.

        Where no place can be used it is kept in memory alone, and said: better told twice than never.

        Returns:
            Whether it was written; False: read again.
        """
        written: bool | None = None
        if self._reached:
            try:
                written = self._with_table(lambda table: _write(table, outage))
            except FanIdentityError:
                self._reached = False
        if written is None:
            written = self._write_local(outage)
        if written is None:
            self._say("what was told of outages cannot be kept; they may be told again")
            written = True
        if written:
            self._known[outage.part] = outage
        return written

    def _with_table(self, do: Callable[[Table], Any]) -> Any:
        opened = self._open
        if opened is None:
            raise BackendUnavailableError("there is no operations table")
        return within(self._seconds, lambda: do(opened()), "the operations table")

    def _move(self, in_table: Mapping[str, Outage]) -> None:
        """Brings the table up to date with what was kept elsewhere. The file stays: what is older there counts no more.

        Removing it would take away what another checker of this machine writes meanwhile.
        """
        behind = [one for one in self._known.values() if one.revision > in_table.get(one.part, Outage("")).revision]
        with suppress(FanIdentityError):  # the next round tries again
            for outage in behind:
                self._with_table(lambda table, outage=outage: _write(table, outage))

    def _read_local(self) -> dict[str, Outage]:
        if not self._local.exists():
            return {}
        try:
            return self._with_local(_read)
        except FanIdentityError:
            return {}

    def _write_local(self, outage: Outage) -> bool | None:
        try:
            _make_private(self._local.parent)
            return self._with_local(lambda table: _write(table, outage))
        except (FanIdentityError, OSError):
            return None

    def _with_local(self, do: Callable[[Table], Any]) -> Any:
        store = SqliteStore(self._local)
        try:
            return do(SqliteTable(store, _TABLE_NAME))
        finally:
            store.close()


def local_place(identity: str) -> Path:
    """Where this user's checkers of one installation keep what they told while the table is down.

    Args:
        identity: tells installations apart, such as the operations table's address.
    """
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"fan-identity-{os.getuid()}" / f"outages-{name}.db"


def _make_private(folder: Path) -> None:
    """Makes a folder nobody else can put anything into.

    Raises:
        OSError: it is somebody else's, or others may write to it.
    """
    folder.mkdir(mode=0o700, parents=False, exist_ok=True)
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's alone")


def _read(table: Table) -> dict[str, Outage]:
    found: dict[str, Outage] = {}
    for item in table.query(OUTAGE_PK):
        try:
            outage = msgspec.convert(item, Outage)
        except msgspec.ValidationError:
            continue  # of a later version of the program
        found[outage.part] = outage
    return found


def _write(table: Table, outage: Outage) -> bool:
    item = {"PK": OUTAGE_PK, "SK": outage.part, "type": "outage", **msgspec.to_builtins(outage)}
    (written,) = table.put_if_newer([(f"{outage.revision:012d}", item)])
    if written is True:
        return True
    # DynamoDB may say False of a write that was made, where the answer was lost and the write tried again.
    found = table.get(OUTAGE_PK, outage.part)
    return found is not None and msgspec.convert(found, Outage) == outage
