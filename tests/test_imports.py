"""Imports run one way, and what answers a lookup never imports Beam."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RUN_AND_LIST_BEAM = """
import runpy, sys
sys.argv = ["fan-identity", *sys.argv[1:]]
try:
    runpy.run_module("fan_identity.pipelines.cli.main", run_name="imported")["main"]()
except SystemExit as end:
    code = end.code
heavy = sorted(name for name in sys.modules if name.partition(".")[0] in ("apache_beam", "grpc", "pyarrow", "plotly"))
print(code or 0, *heavy[:5], file=sys.stderr)
"""


def heavy_modules(cli, *arguments: object) -> str:
    """The exit code of a command and the first heavy modules it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_BEAM, *map(str, arguments)],
        env=cli.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()[-1]


def test_import_contracts_are_kept():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_every_layer_is_under_a_contract():
    """A contract that names nothing would be kept by anything."""
    text = (ROOT / ".importlinter").read_text()
    for layer in ("domain", "io", "transforms", "serving", "batch"):
        assert f"source_modules = fan_identity.{layer}\n" in text, layer


@pytest.mark.parametrize("arguments", [("arm", "fan"), ("show", "fan"), ("dump",), ("dead-letters", "list")], ids=str)
def test_lookups_do_not_import_beam(cli, store, tmp_path, arguments):
    source = tmp_path / "a.jsonl"
    source.write_bytes(
        b'{"activityId":"a","globalUserId":"fan","activityType":"login","occurredAt":1718355600000}\n{"bad"\n'
    )
    store.score(source)
    assert heavy_modules(cli, *arguments, *store.flag) == "0"


@pytest.mark.parametrize("arguments", [("--version",), ("score", "--help"), ("arm", "fan", "--store", "x")], ids=str)
def test_help_and_wrong_usage_do_not_import_beam(cli, arguments):
    assert heavy_modules(cli, *arguments) in ("0", "2")


def test_the_check_itself_sees_beam(cli, tmp_path):
    code, *modules = heavy_modules(
        cli, "score", tmp_path / "none.jsonl", "--store", f"sqlite:///{tmp_path}/x.db"
    ).split()
    assert code == "2"
    assert any(module.startswith("apache_beam") for module in modules)


def test_serving_and_what_it_stands_on_do_not_import_beam():
    """All of serving, domain and io; Parquet's pyarrow is imported where it is used."""
    program = """
import importlib, pkgutil, sys
import fan_identity.domain, fan_identity.io, fan_identity.serving
for package in (fan_identity.domain, fan_identity.io, fan_identity.serving):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
sys.exit("apache_beam" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
