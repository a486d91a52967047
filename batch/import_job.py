"""startClusterImport and startBotOrNotImport: files become the active version, or say why they do not.

plan → compare (writes to no store) → verdict → stage → move the pointer → let scores follow. Killed anywhere, what was
active stays whole: readers see a new version only by the pointer, which is moved in one write; the next run, or
``imports follow``, finishes what was left.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from apache_beam.options.pipeline_options import PipelineOptions
from msgspec.structs import replace

from ..domain.activity import format_time_ms
from ..domain.import_comparison import PartReport
from ..domain.import_verdict import refusal
from ..domain.imports import (
    BUCKETS,
    LEASE,
    ImportKind,
    Pointer,
    State,
    Thresholds,
    VersionRecord,
    named,
    version_name,
)
from ..io.backends import Backends
from ..io.clock import now_ms
from ..io.errors import FanIdentityError, UsageError
from ..io.import_files import ImportPlan, plan_import
from ..io.import_scores import Active
from ..io.import_versions import ImportVersions
from ..io.leases import Lease
from ..io.work_folder import WorkFolder, remove_abandoned, work_folder
from ..pipelines.runner import runs_here
from .import_pipelines import ImportPipelines
from .score_files import Watch, unwatched


class ImportRefusedError(FanIdentityError):
    """An import went over a threshold, or its files were imported before. Nothing was written."""

    exit_code = 2


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Attributes:
        kind: cluster assignments or bot-or-not scores.
        addresses: files or folders; see ``plan_import``.
        format: of all files; told from their names where None.
        thresholds: above these the import is refused.
        dry_run: end after the comparison.
        refuse_rolled_back: do not import files again whose version was taken back; for events, which may come twice.
        work: where to make the work folder; this machine's folder for temporary files where None.
    """

    kind: ImportKind
    addresses: Sequence[str]
    format: str | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    dry_run: bool = False
    work: str | None = None
    refuse_rolled_back: bool = False


@dataclass(frozen=True)
class ImportOutcome:
    """What became of an import.

    Attributes:
        record: of the version, with the comparison.
        result: ``active``, ``refused``, ``dryRun``, or ``unchanged``: it says what the active version says.
        refused: why, in one line, where it would not become active.
        dead_lettered: bad rows written as dead letters.
        followed: fans whose score was written anew.
        seconds: by step, ``compare``, ``stage``, ``follow``.
    """

    record: VersionRecord
    result: str
    refused: str | None = None
    dead_lettered: int = 0
    followed: int = 0
    seconds: dict[str, float] = field(default_factory=dict[str, float])


@dataclass
class ImportJob:
    """Runs imports of one kind on a table.

    Attributes:
        kind: of the imports.
        backends: table, cache and dead letters.
        options: Beam's.
        watch: shows progress.
    """

    kind: ImportKind
    backends: Backends
    options: PipelineOptions
    watch: Watch = unwatched

    def __post_init__(self) -> None:
        self._table = self.backends.open_table()
        self._versions = ImportVersions(self._table, self.kind)
        self._pipelines = ImportPipelines(self.kind, self.backends, self.options)

    def run(self, request: ImportRequest) -> ImportOutcome:
        """Imports files.

        Raises:
            UsageError: a file does not fit; nothing was written.
            ImportRefusedError: the same files were imported before.
            LeaseHeldError: another import is running.
            BackendUnavailableError: a backend is out of reach; what was active stays active.
        """
        if request.work is None and not runs_here(self.options):
            raise UsageError("--work: on a cluster, name a folder all workers reach: s3://bucket/folder or gs://…")
        plan = plan_import(request.addresses, self.kind, request.format)
        remove_abandoned(request.work)
        with nullcontext() if request.dry_run else self.lease() as lease:
            if not request.dry_run:
                for record, followed in self._finish_what_was_left():
                    if record.digest == plan.digest and record.state is State.ACTIVE:
                        # Killed after the pointer moved and started again: this is the end of that run.
                        return ImportOutcome(record, "active", None, record.comparison.total_bad, followed)
            self._refuse_again(plan, request)
            started_at = now_ms()
            version = version_name(started_at, plan.digest)
            with work_folder(request.work, version) as work:
                return self._run(
                    request,
                    plan,
                    VersionRecord(
                        version=version,
                        kind=self.kind,
                        state=State.STAGING,
                        files=named(plan.files),
                        digest=plan.digest,
                        started_at=started_at,
                        thresholds=request.thresholds,
                    ),
                    work,
                    lease,
                )

    def lease(self) -> Lease:
        """The lock that every job on versions holds."""
        return Lease(self._table, LEASE)

    def _run(
        self, request: ImportRequest, plan: ImportPlan, record: VersionRecord, work: WorkFolder, lease: Lease | None
    ) -> ImportOutcome:
        seconds: dict[str, float] = {}
        seen = self._versions.pointer()
        began = time.perf_counter()
        report = self._compare(plan, record.version, seen, work)
        seconds["compare"] = time.perf_counter() - began
        record = replace(
            record, comparison=report.comparison, newest_row_at=report.newest_row_at, replaced=seen.import_version
        )
        why = refusal(report.comparison, request.thresholds) or self._too_old(record)
        if why is not None or lease is None:
            return ImportOutcome(record, "dryRun" if lease is None else "refused", why, seconds=seconds)
        changes = report.comparison
        if seen.import_version is not None and not (changes.added or changes.removed or changes.changed):
            return ImportOutcome(record, "unchanged", None, self._pipelines.write_bad_rows(work), seconds=seconds)
        lease.check()
        began = time.perf_counter()
        dead_lettered = self._pipelines.write_bad_rows(work)
        self._stage(record, work)
        record = replace(record, state=State.STAGED)
        self._versions.save(record)
        seconds["stage"] = time.perf_counter() - began
        lease.check()
        record = self._activate(record, seen)
        began = time.perf_counter()
        followed = self._follow(record)
        seconds["follow"] = time.perf_counter() - began
        return ImportOutcome(replace(record, followed=True), "active", None, dead_lettered, followed, seconds)

    def _compare(self, plan: ImportPlan, version: str, seen: Pointer, work: WorkFolder) -> PartReport:
        active = Active(seen.import_version, ImportVersions(self._table, self.kind.other).pointer().import_version)
        with self.watch("compare", BUCKETS, lambda: work.marks("compared")):
            return self._pipelines.compare(plan, version, active, work)

    def _too_old(self, record: VersionRecord) -> str | None:
        before = None if record.replaced is None else self._versions.record(record.replaced)
        if before is None or record.newest_row_at >= before.newest_row_at:
            return None
        return (
            f"the newest row is of {format_time_ms(record.newest_row_at)}, that of the active version "
            f"{before.version} of {format_time_ms(before.newest_row_at)}; are these older files?"
        )

    def _refuse_again(self, plan: ImportPlan, request: ImportRequest) -> None:
        refused = {State.ACTIVE, State.REPLACED, *([State.ROLLED_BACK] if request.refuse_rolled_back else [])}
        for record in self._versions.records():
            if record.digest == plan.digest and record.state in refused:
                raise ImportRefusedError(
                    f"{', '.join(named(plan.files, 3))}: imported before, as version {record.version}, which is "
                    f"{record.state.value}; nothing was written"
                )

    def _stage(self, record: VersionRecord, work: WorkFolder) -> None:
        self._versions.save(record)
        names = work.names("fans-")
        with self.watch("stage", len(names), lambda: work.marks("staged")):
            self._pipelines.stage(record.version, names, record.comparison.fans, work)

    def _activate(self, record: VersionRecord, seen: Pointer) -> VersionRecord:
        self._versions.move(seen, record.version, now_ms())
        return self._settled()[record.version]

    def _settled(self) -> dict[str, VersionRecord]:
        """Makes every record's state say what the pointer says."""
        active = self._versions.pointer().import_version
        records: dict[str, VersionRecord] = {}
        for record in self._versions.records():
            if record.version == active and record.state is not State.ACTIVE:
                # One taken up again by a rollback: what follows is the version taken back.
                settled = replace(record, state=State.ACTIVE, followed=record.state is State.REPLACED)
            elif record.version != active and record.state is State.ACTIVE:
                settled = replace(record, state=State.REPLACED)
            else:
                settled = record
            if settled is not record:
                self._versions.save(settled)
            records[record.version] = settled
        return records

    def _finish_what_was_left(self) -> list[tuple[VersionRecord, int]]:
        """Lets scores follow where a killed run did not; returns each such version and how many fans it was."""
        return [
            (replace(record, followed=True), self._follow(record))
            for record in self._settled().values()
            if record.state in (State.ACTIVE, State.ROLLED_BACK) and not record.followed
        ]

    def _follow(self, record: VersionRecord) -> int:
        """Lets scores follow once the pointer was moved.

        A worker that scored under the former version finds the moved pointer after it wrote (``persisting.persist``),
        or this finds what it wrote: no score stays behind.
        """
        followed = self._pipelines.follow(record.version, record.comparison.fans)
        self._versions.save(replace(record, followed=True))
        return followed

    def follow(self) -> int:
        """Finishes what a killed run left; returns how many fans' scores were written anew.

        Raises:
            LeaseHeldError, BackendUnavailableError: as ``run``.
        """
        with self.lease():
            return sum(followed for _, followed in self._finish_what_was_left())

    def roll_back(self, expected: str | None = None) -> tuple[VersionRecord, str | None, int]:
        """Makes the version active again that the active one replaced.

        Where a rollback was killed after the pointer moved, this finishes it and goes no further back.

        Args:
            expected: the version to take back: nothing is done where another one is active; None for whichever is.

        Returns:
            The record of the version taken back, the version active now (None where it was the first), and how many
            fans' scores were written anew.

        Raises:
            UsageError: nothing is active, or not what is expected, or what was active before is deleted.
            LeaseHeldError, BackendUnavailableError: as ``run``.
        """
        with self.lease():
            finished = self._finish_what_was_left()
            seen = self._versions.pointer()
            for record, followed in finished:
                if record.state is State.ROLLED_BACK:
                    return record, seen.import_version, followed
            if expected not in (None, seen.import_version):
                raise UsageError(f"version {seen.import_version or 'none'} is active, and not the one to take back")
            record = None if seen.import_version is None else self._versions.record(seen.import_version)
            if record is None:
                raise UsageError(f"no {self.kind} version is active: there is nothing to take back")
            before = None if record.replaced is None else self._versions.record(record.replaced)
            if record.replaced is not None and (before is None or before.state is State.DELETING):
                raise UsageError(f"version {record.replaced} was deleted; import its files again instead")
            # Before the pointer moves: where this is killed in between, the record is made active again.
            record = replace(record, state=State.ROLLED_BACK, followed=False)
            self._versions.save(record)
            self._versions.move(seen, record.replaced, now_ms())
            if before is not None:
                self._versions.save(replace(before, state=State.ACTIVE))
            return record, record.replaced, self._follow(record)

    def clean(self, keep: int) -> list[str]:
        """Deletes versions that nobody needs: not the active one, nor the one to go back to, nor the newest ``keep``.

        Raises:
            LeaseHeldError, BackendUnavailableError: as ``run``.
        """
        with self.lease() as lease:
            self._finish_what_was_left()
            active = self._versions.pointer().import_version
            records = self._versions.records()
            needed = {active, *(record.replaced for record in records if record.version == active)}
            partly = (State.STAGING, State.STAGED, State.DELETING)
            whole = [record.version for record in records if record.state not in partly]
            needed |= set(whole[:keep])
            deleted = [record for record in records if record.version not in needed]
            for record in deleted:
                lease.check()
                # First of all: where this is killed, nobody goes back to what is left of it.
                self._versions.save(replace(record, state=State.DELETING))
                self._pipelines.delete(record.version)
                self._versions.forget(record.version)
            return [record.version for record in deleted]
