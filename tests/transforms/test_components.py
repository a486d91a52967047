"""Components: the same as scipy's, in a number of rounds that the size tells, not the diameter."""

from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fan_identity.io.errors import UsageError
from fan_identity.pipelines.runner import execute, parse_beam_flags
from fan_identity.transforms import cluster_blocks as blocks
from fan_identity.transforms import components
from fan_identity.transforms.components import ConnectedComponents, plan_rounds

EDGES_A_BLOCK = 500  # small, so that blocks alone do not find the components
KEY = 0x1234_5678_9ABC_DEF1


class ReadEdges(beam.DoFn):
    """Blocks of a file of edges, at the places given."""

    def __init__(self, path):
        self._path = path

    def process(self, start):
        edges = np.load(self._path, mmap_mode="r")
        yield edges[:, start : start + EDGES_A_BLOCK].tobytes()


class WriteLabels(beam.DoFn):
    def __init__(self, folder):
        self._folder = folder

    def process(self, labels):
        block = blocks.decode(labels)
        (self._folder / f"{block[0, 0]}.labels").write_bytes(labels)


def run(edges, plan, folder: Path, options: PipelineOptions | None = None):
    """Labels of all nodes (node → label, of the numbers before they were mixed), and the counters."""
    folder.mkdir()
    np.save(folder / "edges.npy", blocks.mix(edges, KEY))
    starts = list(range(0, edges.shape[1], EDGES_A_BLOCK))
    counts = execute(
        lambda pipeline: (
            pipeline
            | beam.Create(starts, reshuffle=False)
            | beam.ParDo(ReadEdges(folder / "edges.npy")).with_output_types(bytes)
            | ConnectedComponents(plan)
            | beam.ParDo(WriteLabels(folder))
        ),
        options or parse_beam_flags([], prism=None),
    )
    labels = blocks.concatenate(path.read_bytes() for path in folder.glob("*.labels"))
    return labels, counts


def scipys(edges):
    nodes, places = np.unique(edges.reshape(-1), return_inverse=True)
    left, right = places.reshape(2, -1)
    size = len(nodes)
    _, labels = connected_components(coo_matrix((np.ones(len(left)), (left, right)), (size, size)), directed=False)
    return nodes, labels


def assert_the_same_components(labels, edges):
    nodes, theirs = scipys(edges[:, edges[0] != edges[1]])
    labels = labels[:, np.argsort(labels[0])]
    mixed = blocks.mix(nodes, KEY)
    assert np.array_equal(labels[0], np.sort(mixed)), "each node once"
    ours = labels[1][np.searchsorted(labels[0], mixed)]
    both = len(np.unique(np.stack((ours, theirs.astype(np.uint64))), axis=1)[0])
    assert both == len(np.unique(ours)) == len(np.unique(theirs))


def rounds_of(counts):
    return sum(1 for name, number in counts.items() if name.startswith("shuffled.round.") and number)


def numbers(values):
    return np.array(values, np.uint64)


def path_graph(size):
    return np.stack((np.arange(size - 1, dtype=np.uint64), np.arange(1, size, dtype=np.uint64)))


def star(size):
    return np.stack((np.zeros(size - 1, np.uint64), np.arange(1, size, dtype=np.uint64)))


def grid(side):
    cells = np.arange(side * side, dtype=np.uint64).reshape(side, side)
    across = np.stack((cells[:, :-1].ravel(), cells[:, 1:].ravel()))
    down = np.stack((cells[:-1].ravel(), cells[1:].ravel()))
    return np.concatenate((across, down), axis=1)


def random_graph(nodes, edges, seed):
    return np.random.default_rng(seed).integers(0, nodes, (2, edges), np.uint64)


def stepwise(edges, partitions):
    """Labels and rounds without Beam, every round spread over as many partitions as the first: the hardest case."""
    parts = [[] for _ in range(partitions)]

    def deal(block):
        for at, data in blocks.split(blocks.roots_of(block), 0, partitions):
            parts[at].append(data)

    for column in edges.T:
        deal(column.reshape(2, 1))
    dropped = []
    while any(parts):
        gathered = [blocks.concatenate(part) for part in parts]
        parts = [[] for _ in range(partitions)]
        level = []
        for block in gathered:
            contracted = blocks.contract(block)
            level.append(contracted.dropped)
            deal(contracted.edges)
        dropped.append(np.concatenate(level, axis=1))
    labels = blocks.empty()
    for level in reversed(dropped):
        labels = blocks.resolve(level, labels)
    return labels, len(dropped)


edge_lists = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=40)
@given(edge_lists, st.integers(1, 9))
def test_any_graph_in_any_number_of_partitions(edges, partitions):
    graph = numbers(edges).T
    labels, _ = stepwise(blocks.mix(graph, KEY), partitions)
    assert_the_same_components(labels, graph)


@given(edge_lists)
def test_a_block_alone_has_the_smallest_node_as_root(edges):
    graph = numbers(edges).T
    roots = blocks.roots_of(graph)
    nodes, theirs = scipys(graph)
    smallest = {label: nodes[theirs == label].min() for label in set(theirs.tolist())}
    assert roots[0].tolist() == nodes.tolist()
    assert roots[1].tolist() == [smallest[label] for label in theirs.tolist()]


@given(st.lists(st.integers(0, 2**64 - 1), unique=True), st.integers(0, 2**64 - 1))
def test_mixing_keeps_nodes_apart(values, key):
    assert len(set(blocks.mix(numbers(values), key).tolist())) == len(values)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), max_size=50), st.integers(1, 300))
def test_splitting_loses_nothing_and_puts_each_node_in_one_partition(values, partitions):
    block = numbers(values).reshape(-1, 2).T
    parts = list(blocks.split(block, 0, partitions))
    assert all((blocks.decode(data)[0] % partitions == at).all() for at, data in parts)
    together = blocks.concatenate(data for _, data in parts)
    assert sorted(zip(*together.tolist(), strict=True)) == sorted(values)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40))
def test_distinct_pairs_are_counted(values):
    pairs, counts = blocks.distinct(numbers(values).reshape(-1, 2).T)
    expected = sorted(set(values))
    assert list(zip(*pairs.tolist(), strict=True)) == expected
    assert counts.tolist() == [values.count(pair) for pair in expected]


@pytest.mark.parametrize("k", [4, 6, 8])
def test_rounds_of_a_path_grow_with_the_logarithm_of_its_length(k):
    """In the hardest case, every edge a block of its own and nearly every node a partition of its own."""
    graph = path_graph(2**k)
    labels, rounds = stepwise(blocks.mix(graph, KEY), 2**k)
    assert_the_same_components(labels, graph)
    # A round drops about a third of the nodes, the local maxima: log2(3/2) = 0.58 of a doubling.
    assert k / 2 < rounds < 2.5 * k + 4


def test_rounds_are_planned_by_size():
    assert plan_rounds(0) == plan_rounds(500_000) == (1,)
    assert plan_rounds(2_000_000) == (4, 2, 1)
    assert plan_rounds(1_000_000_000) == (2_000, 1_000, 500, 250, 125, 63, 32, 16, 8, 4, 2, 1)
    assert [len(plan_rounds(2**k, block_pairs=16)) for k in range(4, 12)] == list(range(2, 10))


GRAPHS = {
    "path": path_graph(100_000),
    "star": star(50_000),
    "grid": grid(250),
    "sparse": random_graph(60_000, 30_000, 1),
    "dense": random_graph(5_000, 60_000, 2),
    "pairs": numbers([range(0, 20_000, 2), range(1, 20_000, 2)]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_in_many_rounds(name, tmp_path):
    edges = GRAPHS[name]
    plan = plan_rounds(edges.shape[1], block_pairs=5_000)
    assert len(plan) > 2
    labels, counts = run(edges, plan, tmp_path / "run")
    assert_the_same_components(labels, edges)
    assert (rounds_of(counts) > 1) == (name != "pairs")
    assert rounds_of(counts) <= len(plan)
    assert counts["shuffled.round.01"] >= len(np.unique(edges)), "every node goes through the first round"


def test_a_graph_that_fits_one_worker_takes_one_round(tmp_path):
    edges = random_graph(60_000, 60_000, 3)
    labels, counts = run(edges, plan_rounds(edges.shape[1]), tmp_path / "run")
    assert_the_same_components(labels, edges)
    assert set(counts) == {"shuffled.round.01"}


@settings(max_examples=10, deadline=None)
@given(edges=edge_lists, plan=st.sampled_from([(1,), (2, 1), (5, 3, 2, 1)]))
def test_small_graphs_through_beam(edges, plan, tmp_path_factory):
    graph = numbers(edges).T
    labels, _ = run(graph, plan, tmp_path_factory.mktemp("small") / "run")
    assert_the_same_components(labels, graph)


def test_on_prism(tmp_path, prism):
    edges = random_graph(60_000, 50_000, 4)
    options = parse_beam_flags(["--runner=PrismRunner"], prism=prism)
    labels, counts = run(edges, plan_rounds(edges.shape[1], block_pairs=20_000), tmp_path / "run", options)
    assert_the_same_components(labels, edges)
    assert rounds_of(counts) > 1


def test_no_edges_at_all(tmp_path):
    labels, counts = run(np.empty((2, 0), np.uint64), (2, 1), tmp_path / "run")
    assert (labels.shape, counts) == ((2, 0), {})


def test_a_graph_much_larger_than_planned_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(components, "BLOCK_PAIRS", 10)
    with pytest.raises(UsageError, match=r"a worker's part of the graph has 1,\d{3} pairs, 100 times what was planned"):
        run(path_graph(1_001), (1,), tmp_path / "run")
