"""Made-up import files, in Parquet."""

# pyarrow has no type stubs; what comes from it is Any or unknown here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_GROUP_ROWS: Final = 250_000
UPDATED_AT: Final = 1_764_000_000_000


def write_scores(path: Path, rows: int, seed: int = 1) -> None:
    """Writes a file of bot-or-not scores, each of another fan, in chance order, a row group at a time."""
    chance = np.random.default_rng(seed)
    schema = pa.schema([("globalUserId", pa.string()), ("bonScore", pa.float64()), ("updatedAt", pa.int64())])
    numbers = chance.permutation(rows)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _GROUP_ROWS):
            part = numbers[start : start + _GROUP_ROWS]
            columns: list[Any] = [
                pa.array([f"user-{number:09d}" for number in part]),
                pa.array(np.round(chance.random(len(part)) ** 4, 3)),
                pa.array(np.full(len(part), UPDATED_AT, dtype=np.int64)),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def read_scores(path: Path) -> list[tuple[str, float, int]]:
    """The rows of such a file, as a script by hand would hold them."""
    table = pq.read_table(path)
    return list(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
