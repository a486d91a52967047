"""The wheel holds what runs and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_the_data_files_and_neither_setup_nor_tests(tmp_path: Path) -> None:
    build = [sys.executable, "-c", "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])", str(tmp_path)]
    copy = tmp_path / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(bytes.decode, files)):
        if (ROOT / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    finished = subprocess.run(build, cwd=copy, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("io/scorecard.json", "batch/report.html.j2", "py.typed", "pipelines/cli/main.py"):
        assert f"fan_identity/{wanted}" in names
    unwanted = ("setup.py", "tests/", "benchmarks/", "docs/")
    assert not [name for name in names if name.removeprefix("fan_identity/").startswith(unwanted)]
