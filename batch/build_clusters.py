"""Builds clusters: who shares what, connected components of it, ids that stay, one pipeline from end to end.

The result is a folder: ``clusters-*.parquet`` (what ``startClusterImport`` takes), ``review-*.parquet`` (clusters too
large to be believed, in the same columns), ``lineage.jsonl`` (what became of old clusters) and ``summary.json``,
written last: a folder without it is of a run that did not end.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import msgspec
from apache_beam.io.parquetio import WriteToParquetBatched
from apache_beam.io.textio import WriteToText
from apache_beam.options.pipeline_options import PipelineOptions
from typing_extensions import override

from ..domain.linking import KINDS, LinkRules
from ..io.clusters import CLUSTERS_PREFIX, LINEAGE_FILE, REVIEW_PREFIX, SUMMARY_FILE, read_assignments
from ..io.errors import BackendUnavailableError, UsageError
from ..io.file_ranges import FileRange, shown
from ..io.link_files import about_rows
from ..pipelines.runner import execute
from ..transforms.cluster_links import LinkFans, ReadLinks, Source
from ..transforms.cluster_naming import AssignIds, JoinFans, NameClusters, ReadPrevious, SplitLabels, Summarize
from ..transforms.cluster_tables import CLUSTERS, decode_tables
from ..transforms.components import BLOCK_PAIRS, ConnectedComponents, plan_rounds

_LINKS_A_ROW: Final = 2
_KEY_BYTES: Final = 32
_DIGEST_BLOCK: Final = 1 << 20


class KindSummary(msgspec.Struct, frozen=True, rename="camel"):
    """What a kind of identifier was worth.

    Attributes:
        links: pairs of a fan and an identifier read, repeated ones included.
        unusable: identifiers read that say nothing, such as placeholders and private addresses.
        identifiers: shared by two fans or more.
        limit: fans an identifier may have.
        weak: whether it links only in numbers.
        hubs: identifiers over the limit, which link nobody.
        hub_links: their fans, summed.
    """

    links: int
    unusable: int
    identifiers: int
    limit: int
    weak: bool
    hubs: int
    hub_links: int


class ReviewCluster(msgspec.Struct, frozen=True, rename="camel"):
    """A cluster put aside.

    Attributes:
        cluster_id: its id.
        fans: how many.
    """

    cluster_id: str
    fans: int


class ClusterSummary(msgspec.Struct, frozen=True, rename="camel"):
    """What a run did.

    Attributes:
        run: names it in new ids: its time and a digest of the previous clusters.
        updated_at: of its rows, epoch milliseconds.
        seconds: it took.
        rows: read.
        rejected: of them, those left out, by reason.
        clustered: fans in a cluster, those under review included.
        alone: fans that share nothing with another.
        kinds: by the kind's name.
        weak_links: pairs of fans that share weak identifiers enough.
        clusters: written.
        sizes: clusters by size, those under review included: those of at most so many fans, and over half as many.
        review: put aside for their size, the largest first.
        partitions: of each round, as planned.
        shuffled: pairs each round shuffled, the first one first.
        shuffled_back: pairs each step of the way back shuffled, the last round's first.
        previous: old clusters: how many there were, stayed the same, split, merged, ended.
    """

    run: str
    updated_at: int
    seconds: float
    rows: int
    rejected: Mapping[str, int]
    clustered: int
    alone: int
    kinds: Mapping[str, KindSummary]
    weak_links: int
    clusters: int
    sizes: Mapping[int, int]
    review: tuple[ReviewCluster, ...]
    partitions: tuple[int, ...]
    shuffled: tuple[int, ...]
    shuffled_back: tuple[int, ...]
    previous: Mapping[str, int]

    @property
    def rounds(self) -> int:
        """Rounds in which there was something left to do."""
        return sum(1 for pairs in self.shuffled if pairs)


@dataclass(frozen=True)
class BuildPlan:
    """What to build clusters from.

    Attributes:
        sources: ranges of files from ``plan_links``, and stores.
        rules: what counts as a link.
        folder: for the result; every worker must reach it.
        previous: Parquet files of the assignment whose ids go on.
        updated_at: the time of the result, epoch milliseconds.
        block_pairs: what a worker holds at once.
    """

    sources: Sequence[Source]
    rules: LinkRules
    folder: Path
    updated_at: int
    previous: Sequence[Path] = ()
    block_pairs: int = BLOCK_PAIRS

    def about_rows(self) -> int:
        """About how many rows the sources have.

        Raises:
            BackendUnavailableError: a source cannot be read.
        """
        ranges = [source for source in self.sources if isinstance(source, FileRange)]
        stores = [source for source in self.sources if not isinstance(source, FileRange)]
        return about_rows(ranges) + sum(store.about_rows() for store in stores)


def check_folder(folder: Path) -> None:
    """Makes the folder of a result, where there is none.

    Raises:
        UsageError: it cannot be made or written, or holds clusters already.
    """
    name = shown(str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = next((file.name for file in sorted(folder.iterdir()) if _is_result(file.name)), None)
    except OSError as error:
        raise UsageError(f"{name}: cannot be written: {error.strerror}; name another folder with --to") from None
    if taken is not None:
        raise UsageError(f"{name}: holds {taken} of an earlier build; name another folder with --to")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{name}: cannot be written; name another folder with --to")


def _is_result(name: str) -> bool:
    return name in (LINEAGE_FILE, SUMMARY_FILE) or (
        name.endswith(".parquet") and name.startswith((f"{CLUSTERS_PREFIX}-", f"{REVIEW_PREFIX}-"))
    )


def build_clusters(plan: BuildPlan, options: PipelineOptions) -> ClusterSummary:
    """Runs the pipeline and writes the summary.

    Raises:
        UsageError: the folder holds clusters already or cannot be written, or a file is damaged.
        BackendUnavailableError: a source or the folder cannot be read or written any more.
    """
    check_folder(plan.folder)
    began = time.perf_counter()
    rounds = plan_rounds(_LINKS_A_ROW * plan.about_rows(), plan.block_pairs)
    run = f"{plan.updated_at}-{_digest(plan.previous)}"
    counts = execute(lambda pipeline: build(pipeline, plan, rounds, run), options)
    summary = _summary(plan, rounds, run, counts, time.perf_counter() - began)
    path = plan.folder / SUMMARY_FILE
    try:
        if not summary.review:
            for empty in plan.folder.glob(f"{REVIEW_PREFIX}-*.parquet"):
                empty.unlink()
        unfinished = path.with_suffix(".new")
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
        unfinished.replace(path)
    except OSError as error:
        raise BackendUnavailableError(f"{shown(str(path))}: cannot be written: {error.strerror}") from None
    return summary


def build(pipeline: beam.Pipeline, plan: BuildPlan, rounds: tuple[int, ...], run: str) -> None:
    """Adds all steps.

    Args:
        pipeline: to add them to.
        plan: what to build from.
        rounds: from ``plan_rounds``.
        run: names the run in new ids.
    """
    # What Beam's operators give has no types.
    key = os.urandom(_KEY_BYTES)
    parts = rounds[0]
    start: Any = pipeline
    read: Any = start | "Sources" >> beam.Create(list(plan.sources), reshuffle=False) | ReadLinks(key, parts)
    edges: Any = read.links | LinkFans(plan.rules, parts)
    labels: Any = edges | ConnectedComponents(rounds) | SplitLabels(parts)
    files = [str(path) for path in plan.previous]
    previous: Any = start | "Previous" >> beam.Create(files, reshuffle=False) | ReadPrevious(key, parts)
    by_fan: Any = {"fans": read.fans, "labels": labels, "previous": previous}
    joined: Any = by_fan | JoinFans(parts)
    members: Any = joined.members | "ByComponent" >> beam.GroupByKey()
    overlaps: Any = (members | Summarize(), joined.gone)
    assigned: Any = overlaps | beam.Flatten() | AssignIds(run)
    named: Any = members | NameClusters(assigned.names, run, plan.rules.review_size, plan.updated_at)
    _ = named.clusters | "WriteClusters" >> _WriteTables(str(plan.folder / CLUSTERS_PREFIX))
    _ = named.review | "WriteReview" >> _WriteTables(str(plan.folder / REVIEW_PREFIX))
    _ = assigned.lineage | WriteToText(str(plan.folder / LINEAGE_FILE), num_shards=1, shard_name_template="")


@dataclass
class _WriteTables(beam.PTransform[Any, Any]):
    """Encoded tables of clusters to Parquet files: written aside, and moved to their names at the end."""

    prefix: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        write: Any = WriteToParquetBatched(self.prefix, CLUSTERS, codec="zstd", file_name_suffix=".parquet")
        return input_or_inputs | beam.ParDo(_Decode()) | write


class _Decode(beam.DoFn):
    @override
    def process(self, element: bytes, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield decode_tables([element], CLUSTERS)


def _digest(files: Iterable[Path]) -> str:
    """Names the previous clusters by their files' contents; 8 hex digits.

    Raises:
        BackendUnavailableError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                while block := file.read(_DIGEST_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise BackendUnavailableError(f"{shown(str(path))}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:8]


def _summary(
    plan: BuildPlan, rounds: tuple[int, ...], run: str, counts: Mapping[str, int], seconds: float
) -> ClusterSummary:
    def of(prefix: str) -> dict[str, int]:
        found = ((name.removeprefix(prefix), number) for name, number in counts.items() if name.startswith(prefix))
        return {name: number for name, number in sorted(found) if number}

    rules = plan.rules
    sizes = {int(size): number for size, number in of("size.").items()}
    return ClusterSummary(
        run=run,
        updated_at=plan.updated_at,
        seconds=round(seconds, 3),
        rows=counts.get("rows", 0),
        rejected=of("rejected."),
        clustered=counts.get("clustered", 0),
        alone=counts.get("alone", 0),
        kinds={
            kind.value: KindSummary(
                links=counts.get(f"links.{kind}", 0),
                unusable=counts.get(f"unusable.{kind}", 0),
                identifiers=counts.get(f"identifiers.{kind}", 0),
                limit=rules.limits[kind],
                weak=kind in rules.weak,
                hubs=counts.get(f"hubs.{kind}", 0),
                hub_links=counts.get(f"hub_links.{kind}", 0),
            )
            for kind in KINDS
        },
        weak_links=counts.get("weak_links", 0),
        clusters=counts.get("clusters", 0),
        sizes=dict(sorted(sizes.items())),
        review=_under_review(plan.folder) if counts.get("review_clusters") else (),
        partitions=rounds,
        shuffled=tuple(counts.get(f"shuffled.round.{level:02d}", 0) for level in range(1, len(rounds) + 1)),
        shuffled_back=tuple(counts.get(f"shuffled.back.{level:02d}", 0) for level in range(len(rounds) - 1, 0, -1)),
        previous=of("old."),
    )


def _under_review(folder: Path) -> tuple[ReviewCluster, ...]:
    sizes: dict[str, int] = {}
    for path in folder.glob(f"{REVIEW_PREFIX}-*.parquet"):
        for _, clusters in read_assignments(str(path)):
            for cluster in clusters:
                sizes[cluster] = sizes.get(cluster, 0) + 1
    return tuple(ReviewCluster(name, fans) for name, fans in sorted(sizes.items(), key=lambda one: (-one[1], one[0])))
