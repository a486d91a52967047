"""Builds clusters: who shares what, connected components of it, ids that stay, one pipeline from end to end.

The result is a folder that ``startClusterImport`` takes as it is: ``clusters/*.parquet``, and with an underscore in
front, so that the import leaves it out, ``_review/*.parquet`` (clusters too large to be believed, in the same columns),
``_lineage.jsonl`` (what became of old clusters) and ``_summary.json``.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import msgspec
from apache_beam.io.parquetio import WriteToParquetBatched
from apache_beam.io.textio import WriteToText
from apache_beam.options.pipeline_options import PipelineOptions
from typing_extensions import override

from ..domain.linking import LinkRules
from ..io.active_clusters import ActiveClusters
from ..io.cluster_folder import check_folder, finish, unfinished
from ..io.clusters import CLUSTERS_FOLDER, LINEAGE_FILE, REVIEW_FOLDER, read_assignments
from ..io.errors import BackendUnavailableError
from ..io.file_ranges import FileRange, shown
from ..io.link_files import about_rows
from ..pipelines.runner import execute
from ..transforms.cluster_links import LinkFans, ReadLinks, Source
from ..transforms.cluster_naming import AssignIds, JoinFans, NameClusters, SplitLabels, Summarize
from ..transforms.cluster_previous import Previous, ReadPrevious
from ..transforms.cluster_tables import CLUSTERS, decode_tables
from ..transforms.components import BLOCK_PAIRS, ConnectedComponents, plan_rounds
from .cluster_summary import ClusterSummary, summarize

_LINKS_A_ROW: Final = 2
_KEY_BYTES: Final = 32
_DIGEST_BLOCK: Final = 1 << 20
_PART: Final = "part"


@dataclass(frozen=True)
class BuildPlan:
    """What to build clusters from.

    Attributes:
        sources: ranges of files from ``plan_links``, and stores.
        rules: what counts as a link.
        folder: for the result; every worker must reach it.
        previous: the assignment whose ids go on: its Parquet files, or the active version of a table.
        updated_at: the time of the result, epoch milliseconds.
        block_pairs: what a worker holds at once.
    """

    sources: Sequence[Source]
    rules: LinkRules
    folder: Path
    updated_at: int
    previous: Previous = ()
    block_pairs: int = BLOCK_PAIRS

    def about_rows(self) -> int:
        """About how many rows the sources have.

        Raises:
            BackendUnavailableError: a source cannot be read.
        """
        ranges = [source for source in self.sources if isinstance(source, FileRange)]
        stores = [source for source in self.sources if not isinstance(source, FileRange)]
        return about_rows(ranges) + sum(store.about_rows() for store in stores)


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
    with unfinished(plan.folder) as aside:
        counts = execute(lambda pipeline: build(pipeline, plan, aside, rounds, run), options)
        if isinstance(plan.previous, ActiveClusters):
            plan.previous.check()
        review = _under_review(aside / REVIEW_FOLDER)
        seconds = time.perf_counter() - began
        summary = summarize(counts, plan.rules, rounds, review, run, plan.updated_at, seconds)
        text = msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
        finish(aside, plan.folder, text, review=bool(review))
    return summary


def build(pipeline: beam.Pipeline, plan: BuildPlan, aside: Path, rounds: tuple[int, ...], run: str) -> None:
    """Adds all steps.

    Args:
        pipeline: to add them to.
        plan: what to build from.
        aside: where the result is written.
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
    previous: Any = start | ReadPrevious(plan.previous, key, parts)
    by_fan: Any = {"fans": read.fans, "labels": labels, "previous": previous}
    joined: Any = by_fan | JoinFans(parts)
    members: Any = joined.members | "ByComponent" >> beam.GroupByKey()
    overlaps: Any = (members | Summarize(), joined.gone)
    assigned: Any = overlaps | beam.Flatten() | AssignIds(run)
    named: Any = members | NameClusters(assigned.names, run, plan.rules.review_size, plan.updated_at)
    _ = named.clusters | "WriteClusters" >> _WriteTables(str(aside / CLUSTERS_FOLDER / _PART))
    _ = named.review | "WriteReview" >> _WriteTables(str(aside / REVIEW_FOLDER / _PART))
    _ = assigned.lineage | WriteToText(str(aside / LINEAGE_FILE), num_shards=1, shard_name_template="")


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


def _digest(previous: Previous) -> str:
    """Names the previous clusters by their files' contents, or their version's name; 8 hex digits.

    Raises:
        BackendUnavailableError: a file cannot be read.
    """
    if isinstance(previous, ActiveClusters):
        return hashlib.sha256(previous.version.encode()).hexdigest()[:8]
    digest = hashlib.sha256()
    for path in previous:
        try:
            with path.open("rb") as file:
                while block := file.read(_DIGEST_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise BackendUnavailableError(f"{shown(str(path))}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:8]


def _under_review(files: Path) -> Counter[str]:
    fans: Counter[str] = Counter()
    for path in files.glob("*.parquet"):
        for _, clusters in read_assignments(str(path)):
            fans.update(clusters)
    return fans
