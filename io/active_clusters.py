"""The active cluster version of a fan identity table, as what a build of clusters goes on from."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from dataclasses import dataclass

from ..domain.imports import ImportKind, State
from .backends import Backends
from .errors import BackendUnavailableError, UsageError
from .import_versions import ImportVersions, Part


@dataclass(frozen=True)
class ActiveClusters:
    """A version of cluster imports that was active when it was looked up. Pickles as text.

    Attributes:
        backends: with the table.
        version: its name.
    """

    backends: Backends
    version: str

    @classmethod
    def of(cls, backends: Backends) -> "ActiveClusters":
        """The version that is active now.

        Raises:
            UsageError: there is none.
            BackendUnavailableError: the table is out of reach.
        """
        version = _versions(backends).pointer().import_version
        if version is None:
            raise UsageError(
                f"--previous active: {backends.table} has no active cluster version; leave --previous out the first "
                "time, then import what was built: fan-identity imports start cluster FOLDER/"
            )
        return cls(backends, version)

    def assignments(self, bucket: int) -> tuple[list[str], list[str]]:
        """The fans of a bucket (0 to 255) and their cluster ids.

        Raises:
            BackendUnavailableError: the table is out of reach.
        """
        fans = _versions(self.backends).bucket(self.version, Part.FANS, bucket)
        return ([], []) if fans is None else (fans.column("user").to_pylist(), fans.column("value").to_pylist())

    def check(self) -> None:
        """Makes sure that the version is still whole, after it was read.

        Raises:
            BackendUnavailableError: it was deleted meanwhile, or the table is out of reach.
        """
        record = _versions(self.backends).record(self.version)
        if record is None or record.state is State.DELETING:
            raise BackendUnavailableError(
                f"{self.backends.table}: cluster version {self.version} was deleted while it was read; build again"
            )


def _versions(backends: Backends) -> ImportVersions:
    return ImportVersions(backends.open_table(), ImportKind.CLUSTER)
