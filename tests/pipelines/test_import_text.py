"""An import in the terminal: figures and their directions, and ids that cannot do anything to the terminal."""

import io

from msgspec.structs import replace
from rich.console import Console

from fan_identity.domain.imports import ArmChange, ClusterChanges, Comparison, ImportKind, State, VersionRecord
from fan_identity.pipelines.cli.import_text import comparison_tables

RECORD = VersionRecord(
    "20261126T021500Z-1a2b3c4d",
    ImportKind.CLUSTER,
    State.STAGED,
    ("a.csv",),
    "1a2b3c4d" * 8,
    1,
    comparison=Comparison(
        compared_with="v",
        rows=1_000_020,
        bad={"blank_user": 15},
        bad_examples=("a.csv, line 3: no user id",),
        repeated=5,
        fans=1_000_000,
        changed=1_000_000,
        arm=((7, 0, 0, 0, 12), (0,) * 5, (0,) * 5, (1_204, 0, 0, 0, 0), (0,) * 5),
        examples=(ArmChange("fan-1", 1, 5, 90.5, 3.0, "c-1", None), ArmChange("fan-2", 4, 1, 30.0, 91.0, None, "c-2")),
        clusters=ClusterChanges(
            split_examples=(("c-1", (("n-1", 1), ("n-2", 1_200), ("n-3", 2), ("n-4", 3), ("n-5", 1))),),
            merged_examples=(("n-9", (("c-8", 1), ("c-9", 2))),),
        ),
    ),
)


def shown(record, width=100):
    file = io.StringIO()
    console = Console(
        file=file, width=width, highlight=False, markup=False, color_system="truecolor", force_terminal=True
    )
    console.print(*comparison_tables(record), sep="\n")
    return file.getvalue()


def lines(record):
    console = Console(file=io.StringIO(), width=100, highlight=False, markup=False)
    console.print(*comparison_tables(record), sep="\n")
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_figures_and_directions():
    said = lines(RECORD)
    for line in (
        "1 → 7 0 0 0 12▲ 19",
        "4 → 1,204▼ 0 0 0 0 1,204",
        "all 1,211 0 0 0 12 1,223",
        "rows read 1,000,020",
        "no fan's id 15",
        "repeated 5",
        "fans 1,000,000",
        "a.csv, line 3: no user id",
        "fan-1 1 → 5 ▲ 90.50 → 3.00 c-1 → none",
        "fan-2 4 → 1 ▼ 30.00 → 91.00 none → c-2",
        "splits c-1 1,207 n-2 1,200, n-4 3, n-3 2, 2 more",
        "merged n-9 3 c-9 2, c-8 1",
    ):
        assert line in said
    assert not [line for line in said if "unaccounted" in line]


def test_rows_that_are_missing_are_said():
    assert "unaccounted for: a defect of fan-identity 3" in lines(
        replace(RECORD, comparison=replace(RECORD.comparison, rows=1_000_023))
    )


def test_an_empty_comparison_has_its_counts_only():
    said = lines(VersionRecord("v", ImportKind.BOT_OR_NOT, State.STAGING, (), "", 0))
    assert "rows read 0" in said
    assert not [line for line in said if "ARM" in line]


def test_hostile_ids_are_text_and_short():
    names = ("\x1b]0;owned\x07\x1b[2J", "\u202eevil\r\n", "[red]x[/red]", "A" * 10_000, "nul\0")
    record = replace(
        RECORD,
        comparison=replace(
            RECORD.comparison,
            bad=dict.fromkeys(names, 1),
            bad_examples=names,
            examples=tuple(ArmChange(name, 1, 5, 1.0, 2.0, name, name) for name in names),
            clusters=ClusterChanges(split_examples=tuple((name, ((name, 1), ("b", 1))) for name in names)),
        ),
    )
    for width in (40, 80, 160):
        text = shown(record, width)
        assert not {char for char in text if not char.isprintable()} - {"\n", "\x1b"}
        assert "\x1b]" not in text, "no title is set"
        assert "\x1b[2J" not in text, "no screen is cleared"
        assert len(text) < 30_000
    assert "[red]x[/red]" in text
    assert "\\x1b]0;owned\\x07\\x1b[2J" in text
