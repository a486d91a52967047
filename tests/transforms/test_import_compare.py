"""Reading import files in portions: whatever a range's size, memory holds some of its rows, and none is lost."""

import gzip

import apache_beam as beam
import msgspec

from fan_identity.domain.import_comparison import PartReport
from fan_identity.domain.imports import ImportKind
from fan_identity.domain.records import DeadLetter
from fan_identity.io.backends import Backends
from fan_identity.io.import_files import BATCH_ROWS, plan_import
from fan_identity.io.import_scores import Active
from fan_identity.io.work_folder import WorkFolder
from fan_identity.transforms import import_compare
from fan_identity.transforms.import_compare import CompareWithActive

ROWS = 3 * BATCH_ROWS
BAD = {5, BATCH_ROWS + 5, ROWS - 1}


def test_a_packed_file_of_any_size_is_read_in_portions(tmp_path, monkeypatch):
    monkeypatch.setattr(import_compare, "HELD_ROWS", BATCH_ROWS)
    packed_rows = []
    split = import_compare.split_by_bucket

    def watched(rows):
        packed_rows.append(rows.num_rows)
        return split(rows)

    monkeypatch.setattr(import_compare, "split_by_bucket", watched)
    lines = [f"fan-{row % 900},{2 if row in BAD else 0.25},{1_750_000_000_000 + row}\n" for row in range(ROWS)]
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(("globalUserId,bonScore,updatedAt\n" + "".join(lines)).encode()))
    plan = plan_import([str(tmp_path / "b.csv.gz")], ImportKind.BOT_OR_NOT)
    assert len(plan.ranges) == 1
    (tmp_path / "work").mkdir()
    work = WorkFolder(str(tmp_path / "work"))
    store = f"sqlite:///{tmp_path}/fans.db"
    backends = Backends("scoreUsers", store, store, None, store, store, store)
    with beam.Pipeline() as pipeline:
        compare = CompareWithActive(ImportKind.BOT_OR_NOT, Active(None, None), backends, work, "v")
        pipeline | beam.Create(plan.ranges) | compare

    assert sum(packed_rows) == ROWS - len(BAD)
    assert len(packed_rows) == ROWS // BATCH_ROWS
    report = msgspec.json.decode(work.read("report.json"), type=PartReport)
    assert (report.comparison.rows, report.comparison.bad) == (ROWS, {"out_of_range": len(BAD)})
    assert (report.comparison.fans, report.comparison.repeated) == (900, ROWS - len(BAD) - 900)
    assert report.newest_row_at == 1_750_000_000_000 + ROWS - 2
    letters = [
        letter
        for name in work.names("bad-")
        for letter in msgspec.msgpack.decode(work.read(name), type=list[DeadLetter])
    ]
    assert sorted(letter.position.rpartition(" line ")[2] for letter in letters) == sorted(str(row + 2) for row in BAD)
