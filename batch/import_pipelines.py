"""The pipelines of an import, one for each step that goes over many fans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import apache_beam as beam
import msgspec
from apache_beam.options.pipeline_options import PipelineOptions

from ..domain.import_comparison import PartReport
from ..domain.imports import BUCKETS, ImportKind
from ..io.backends import Backends
from ..io.import_files import ImportPlan
from ..io.import_scores import Active
from ..io.work_folder import WorkFolder
from ..pipelines.runner import execute
from ..transforms.import_compare import CompareWithActive
from ..transforms.import_following import FollowImport
from ..transforms.import_staging import DeleteFans, StageFans, WriteBadRows

_GROUP_FANS: Final = 5_000
_GROUPS: Final = 4

Bucket = TypeVar("Bucket", int, str)


@dataclass(frozen=True)
class ImportPipelines:
    """Runs them to their end. Each is idempotent: one that was killed is run again as a whole.

    Attributes:
        kind: of the import.
        backends: table, cache and dead letters.
        options: Beam's.

    Every method raises BackendUnavailableError where a backend or the work folder is out of reach.
    """

    kind: ImportKind
    backends: Backends
    options: PipelineOptions

    def compare(self, plan: ImportPlan, version: str, active: Active, work: WorkFolder) -> PartReport:
        """Reads the files and holds them against what is active; writes to the work folder alone."""
        compare = CompareWithActive(self.kind, active, self.backends, work, version)

        def build(pipeline: beam.Pipeline) -> None:
            start: Any = pipeline  # Beam's | has no types
            _ = start | "Files" >> beam.Create(plan.ranges) | "Spread files" >> beam.Reshuffle() | compare

        execute(build, self.options)
        return msgspec.json.decode(work.read("report.json"), type=PartReport)

    def write_bad_rows(self, work: WorkFolder) -> int:
        """Writes the comparison's bad rows as dead letters; returns their number."""
        bad = work.names("bad-")
        if not bad:
            return 0

        def build(pipeline: beam.Pipeline) -> None:
            start: Any = pipeline
            _ = start | "Bad rows" >> beam.Create(bad) | "Write dead letters" >> WriteBadRows(self.backends, work)

        return sum(execute(build, self.options).values())

    def stage(self, version: str, names: Sequence[str], fans: int, work: WorkFolder) -> None:
        """Writes a version's items from the work folder's files of fans, of which there are about so many."""
        stage = StageFans(self.kind, version, self.backends, work)

        def build(pipeline: beam.Pipeline) -> None:
            start: Any = pipeline
            _ = (
                start
                | "Buckets" >> beam.Create(_groups(names, fans))
                | "Spread" >> beam.Reshuffle()
                | "Stage fans" >> stage
            )

        execute(build, self.options)

    def follow(self, version: str, fans: int) -> int:
        """Writes the scores anew that a version's changes make a difference for; returns of how many fans.

        Args:
            version: whose changes.
            fans: about how many it has.
        """
        follow = FollowImport(self.kind, version, self.backends)

        def build(pipeline: beam.Pipeline) -> None:
            start: Any = pipeline
            groups = start | "Buckets" >> beam.Create(_groups(range(BUCKETS), fans)) | "Spread" >> beam.Reshuffle()
            _ = groups | "Follow import" >> follow

        return execute(build, self.options).get("followed", 0)

    def delete(self, version: str) -> None:
        """Deletes a version's items; its record stays."""
        delete = DeleteFans(self.kind, version, self.backends)

        def build(pipeline: beam.Pipeline) -> None:
            start: Any = pipeline
            buckets = start | "Buckets" >> beam.Create(list(range(BUCKETS))) | "Spread" >> beam.Reshuffle()
            _ = buckets | "Delete fans" >> delete

        execute(build, self.options)


def _groups(buckets: Sequence[Bucket], fans: int) -> list[tuple[Bucket, ...]]:
    """Buckets in groups of about ``_GROUP_FANS`` fans, at least ``_GROUPS`` of them for workers to share."""
    most = -(-len(buckets) // _GROUPS)
    size = max(1, min(most, len(buckets) * _GROUP_FANS // max(fans, 1)))
    return [tuple(buckets[start : start + size]) for start in range(0, len(buckets), size)]
