"""Clustering two million edges: our components beside label propagation on the same runner, and scipy in memory.

Label propagation (every node takes the smallest label among its neighbours, until nothing changes) is written twice:
with the same transforms, on the same blocks, a few rounds a pipeline with files in between (the runner keeps in memory
what every step put out); and as Beam is usually written, an element a record. Both are told how many rounds they need,
which costs a real one a look at every round's end. Each contender is a process of its own; ours and scipy take turns.
"""

# scipy has no types, and Beam leaves its most common functions without.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ...pipelines.runner import execute, parse_beam_flags
from ...transforms import cluster_blocks as blocks
from ...transforms.batches import count
from ...transforms.components import ConnectedComponents, Keyed, plan_rounds

TARGET_RATIO: Final = 5.0
TARGET_MB: Final = 2_000
_EDGES: Final = 2_000_000
_PLAIN_EDGES: Final = 20_000
_MEAN_DEGREE: Final = 0.8
_PARTITIONS: Final = 4
_ROUNDS_A_PIPELINE: Final = 3
_KEY: Final = 0x9E37_79B9_7F4A_7C15
_OURS: Final = "ours"
_SAME: Final = "label propagation, same transforms"
_PLAIN: Final = "label propagation, an element a record"
_SCIPY: Final = "scipy, in memory"
_SLOW: Final = (_SAME, _PLAIN)
"""Run once: minutes each, and far from the target."""


def main() -> None:
    """Runs all contenders and prints times, memory, and what each round shuffled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="alternating runs of each contender")
    parser.add_argument("--edges", type=int, default=_EDGES)
    parser.add_argument("--plain-edges", type=int, default=_PLAIN_EDGES, help="of the smaller graph")
    parser.add_argument("--one", nargs=3, metavar=("NAME", "FILE", "ROUNDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, file, rounds = arguments.one
        print(json.dumps(_CONTENDERS[name](Path(file), int(rounds))))
        return
    run(arguments.repeat, arguments.edges, arguments.plain_edges)


def run(repeat: int, edges: int, plain_edges: int) -> None:
    """Compares all contenders on a large graph, and those that can wait for it on a small one too."""
    with tempfile.TemporaryDirectory() as folder:
        large = _graph(Path(folder) / "large.npy", edges)
        small = _graph(Path(folder) / "small.npy", plain_edges)
        best = _compare(large, repeat, (_OURS, _SAME, _SCIPY))
        print(f"target: at least {TARGET_RATIO:g} times the same transforms' label propagation: {_verdict(best)}")
        _compare(small, repeat, (_OURS, _SAME, _PLAIN, _SCIPY))


def _verdict(ratio_and_memory: tuple[float, float]) -> str:
    ratio, memory = ratio_and_memory
    met = "met" if ratio >= TARGET_RATIO else "MISSED"
    within = "met" if memory <= TARGET_MB else "MISSED"
    return f"{ratio:.1f}: {met}; within {TARGET_MB:,} MB: {memory:,.0f}: {within}"


def _graph(path: Path, edges: int) -> Path:
    """A random graph just under the density at which it grows together: many trees, some of them deep.

    So fans look once hubs are left out. Nodes are mixed, as keyed hashes are.
    """
    nodes = int(2 * edges / _MEAN_DEGREE)
    numbers = np.random.default_rng(edges).integers(0, nodes, (2, edges), np.uint64)
    np.save(path, blocks.mix(numbers[:, numbers[0] != numbers[1]], _KEY))
    return path


def _rounds_needed(edges: blocks.Block) -> int:
    """Rounds after which label propagation changes nothing, worked out in memory."""
    _, places = np.unique(edges.reshape(-1), return_inverse=True)
    left, right = places.reshape(2, -1)
    labels = np.arange(int(places.max()) + 1)
    rounds = 0
    while True:
        following = labels.copy()
        np.minimum.at(following, left, labels[right])
        np.minimum.at(following, right, labels[left])
        if np.array_equal(following, labels):
            return rounds
        labels, rounds = following, rounds + 1


def _compare(path: Path, repeat: int, names: tuple[str, ...]) -> tuple[float, float]:
    edges = np.load(path)
    rounds = _rounds_needed(edges)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float] = dict.fromkeys(names, 0.0)
    results: dict[str, dict[str, Any]] = {}
    for turn in range(repeat):
        for name in names:
            if turn and name in _SLOW:
                continue
            result, peak = _run_apart(name, path, rounds)
            results[name] = result
            seconds[name].append(result["seconds"])
            memory[name] = max(memory[name], peak)
    if len({result["components"] for result in results.values()}) != 1:
        raise SystemExit(f"the contenders disagree: {results}")
    print(
        f"\nClustering {edges.shape[1]:,} edges, {results[names[0]]['components']:,} components; "
        f"label propagation needs {rounds} rounds; medians of {repeat} runs, "
        "of one for label propagation"
    )
    print(f"{'':42}{'seconds':>9}{'min':>8}{'max':>8}{'peak MB':>9}{'rounds':>8}{'shuffled':>14}{'ours is':>9}")
    ours = statistics.median(seconds[_OURS])
    for name in names:
        times, shuffled = seconds[name], results[name]["shuffled"]
        print(
            f"{name:42}{statistics.median(times):>9.2f}{min(times):>8.2f}{max(times):>8.2f}{memory[name]:>9,.0f}"
            f"{results[name]['rounds']:>8}{sum(shuffled.values()):>14,}{statistics.median(times) / ours:>8.1f}x"
        )
    for name in names:
        told = [f"{step} {number:,}" for step, number in sorted(results[name]["shuffled"].items())]
        if told:
            print(f"pairs shuffled, {name}: {', '.join(told)}")
    return statistics.median(seconds[_SAME]) / ours, memory[_OURS]


def _run_apart(name: str, path: Path, rounds: int) -> tuple[dict[str, Any], float]:
    command = [sys.executable, "-m", __spec__.name, "--one", name, str(path), str(rounds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    answer = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{name} failed")
    return json.loads(answer), usage.ru_maxrss / 1024


class _ReadEdges(beam.DoFn):
    """Blocks of a file of edges, at the places given."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def process(self, element: int, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        edges = np.load(self._path, mmap_mode="r")
        yield edges[:, element : element + blocks.CHUNK_PAIRS].tobytes()


class _Count(beam.DoFn):
    """Counts the labels that stand for components: those that are their own."""

    def process(self, element: bytes, *args: Any, **kwargs: Any) -> None:
        node, label = blocks.decode(element)
        count("components", int(np.count_nonzero(node == label)))


def _read(pipeline: Any, path: Path) -> Any:
    starts = list(range(0, np.load(path, mmap_mode="r").shape[1], blocks.CHUNK_PAIRS))
    read: Any = beam.ParDo(_ReadEdges(path)).with_output_types(bytes)
    return pipeline | beam.Create(starts, reshuffle=False) | read


def _timed(path: Path, cluster: Callable[[Any], Any], rounds: int | None) -> dict[str, Any]:
    began = time.perf_counter()
    counts = execute(lambda pipeline: cluster(_read(pipeline, path)), parse_beam_flags([], prism=None))
    return _told(counts, time.perf_counter() - began, rounds)


def _told(counts: dict[str, int], seconds: float, rounds: int | None) -> dict[str, Any]:
    shuffled = {name.partition(".")[2]: number for name, number in counts.items() if name.startswith("shuffled.")}
    used = sum(1 for name in shuffled if name.startswith("round"))
    return {
        "seconds": seconds,
        "components": counts["components"],
        "rounds": used if rounds is None else rounds,
        "shuffled": shuffled,
    }


def _ours(path: Path, rounds: int) -> dict[str, Any]:
    del rounds
    plan = plan_rounds(np.load(path, mmap_mode="r").shape[1])
    return _timed(path, lambda edges: edges | ConnectedComponents(plan) | beam.ParDo(_Count()), None)


class _Directed(beam.DoFn):
    """Edges both ways, by source, and each node with itself as first label."""

    def process(self, element: bytes, *args: Any, **kwargs: Any) -> Iterator[Any]:
        edges = blocks.decode(element)
        yield from blocks.split(np.concatenate((edges, edges[::-1]), axis=1), 0, _PARTITIONS)


class _FirstLabels(beam.DoFn):
    def process(self, element: bytes, *args: Any, **kwargs: Any) -> Iterator[Keyed]:
        nodes = np.unique(blocks.decode(element))
        return blocks.split(blocks.pairs(nodes, nodes), 0, _PARTITIONS)


def _smallest(pairs: blocks.Block) -> blocks.Block:
    """The smallest second column of each node."""
    if not pairs.shape[1]:
        return pairs
    node, label = pairs[:, np.argsort(pairs[0])]
    first = blocks.starts(node)
    return blocks.pairs(node[first], np.minimum.reduceat(label, first))


class _Propagate(beam.DoFn):
    """One round: a partition's nodes take the smallest label they were sent, and send it to their neighbours."""

    def __init__(self, level: int) -> None:
        self._level = level

    def process(self, element: tuple[int, Any], *args: Any, **kwargs: Any) -> Iterator[Keyed]:
        edges = blocks.concatenate(element[1]["edges"])
        sent = blocks.concatenate(element[1]["labels"])
        count(f"shuffled.round.{self._level:02d}", edges.shape[1] + sent.shape[1])
        labels = _smallest(sent)
        place, _ = blocks.find(labels[0], edges[0])
        messages = _smallest(blocks.pairs(edges[1], labels[1][place]))  # combined before they are sent
        yield from blocks.split(labels, 0, _PARTITIONS)
        yield from blocks.split(messages, 0, _PARTITIONS)


class _SaveLabels(beam.DoFn):
    """Writes a partition's labels, and counts those that stand for components: those that are their own."""

    def __init__(self, folder: Path, last: bool) -> None:
        self._folder = folder
        self._last = last

    def process(self, element: tuple[int, Iterable[bytes]], *args: Any, **kwargs: Any) -> None:
        labels = _smallest(blocks.concatenate(element[1]))
        np.save(self._folder / f"{element[0]}.npy", labels)
        if self._last:
            count("components", int(np.count_nonzero(labels[0] == labels[1])))


class _ReadLabels(beam.DoFn):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def process(self, element: int, *args: Any, **kwargs: Any) -> Iterator[Keyed]:
        for chunk in blocks.chunks(np.load(self._folder / f"{element}.npy")):
            yield element, chunk


def _typed(do_fn: beam.DoFn) -> Any:
    return beam.ParDo(do_fn).with_output_types(Keyed)


def _same(path: Path, rounds: int) -> dict[str, Any]:
    began = time.perf_counter()
    total: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for first in range(1, rounds + 1, _ROUNDS_A_PIPELINE):
            levels = range(first, min(first + _ROUNDS_A_PIPELINE, rounds + 1))
            _add(total, execute(_some_rounds(path, Path(folder), levels, rounds), parse_beam_flags([], prism=None)))
    return _told(total, time.perf_counter() - began, rounds)


def _add(total: dict[str, int], counts: dict[str, int]) -> None:
    for name, number in counts.items():
        total[name] = total.get(name, 0) + number


def _some_rounds(path: Path, folder: Path, levels: range, rounds: int) -> Callable[[Any], Any]:
    def build(pipeline: Any) -> Any:
        read = _read(pipeline, path)
        edges: Any = read | _typed(_Directed())
        if levels[0] == 1:
            labels: Any = read | _typed(_FirstLabels())
        else:
            parts: Any = pipeline | "Parts" >> beam.Create(list(range(_PARTITIONS)), reshuffle=False)
            labels = parts | _typed(_ReadLabels(folder))
        for level in levels:
            both: Any = {"edges": edges, "labels": labels}
            labels = both | f"ByNode{level}" >> beam.CoGroupByKey() | f"Propagate{level}" >> _typed(_Propagate(level))
        return labels | beam.GroupByKey() | beam.ParDo(_SaveLabels(folder, levels[-1] == rounds))

    return build


def _records(encoded: bytes) -> Iterator[tuple[int, int]]:
    # Signed, as Beam's coder of integers wants them.
    for left, right in blocks.decode(encoded).view(np.int64).T.tolist():
        yield left, right
        yield right, left


def _send(element: tuple[int, Any]) -> Iterator[tuple[int, int]]:
    node, joined = element
    label = min(joined["labels"])
    yield node, label
    for neighbours in joined["neighbours"]:
        for neighbour in neighbours:
            yield neighbour, label


def _is_own(element: tuple[int, int]) -> None:
    count("components", element[0] == element[1])


class _PlainPropagation(beam.PTransform[Any, Any]):
    """As Beam is usually written: an element a node, a message or an edge."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._rounds = rounds

    def expand(self, input_or_inputs: Any) -> Any:
        pair = tuple[int, int]
        records: Any = input_or_inputs | beam.FlatMap(_records).with_output_types(pair)
        neighbours = records | "Neighbours" >> beam.GroupByKey()
        labels = neighbours | "First" >> beam.Map(lambda one: (one[0], one[0])).with_output_types(pair)
        for level in range(1, self._rounds + 1):
            both: Any = {"neighbours": neighbours, "labels": labels}
            sent = (
                both
                | f"Join{level}" >> beam.CoGroupByKey()
                | f"Send{level}" >> beam.FlatMap(_send).with_output_types(pair)
            )
            labels = sent | f"Smallest{level}" >> beam.CombinePerKey(min)
        return labels | beam.Map(_is_own)


def _plain(path: Path, rounds: int) -> dict[str, Any]:
    return _timed(path, lambda edges: edges | _PlainPropagation(rounds), rounds)


def _scipy(path: Path, rounds: int) -> dict[str, Any]:
    del rounds
    edges = np.load(path)
    began = time.perf_counter()
    nodes, places = np.unique(edges.reshape(-1), return_inverse=True)
    left, right = places.reshape(2, -1)
    matrix = coo_matrix((np.ones(len(left), np.int8), (left, right)), (len(nodes), len(nodes)))
    found, _ = connected_components(matrix, directed=False)
    return {"seconds": time.perf_counter() - began, "components": int(found), "rounds": 0, "shuffled": {}}


_CONTENDERS: Final[dict[str, Callable[[Path, int], dict[str, Any]]]] = {
    _OURS: _ours,
    _SAME: _same,
    _PLAIN: _plain,
    _SCIPY: _scipy,
}


if __name__ == "__main__":
    main()
