"""Peak memory of ``fan-identity score`` at 200,000 and at 1,000,000 activities: it must not grow with the input."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..batch.simulate import SaleSettings, write_simulation

TARGET_MB = 600
TARGET_GROWTH = 1.15


def run(fans_small: int, fans_large: int) -> None:
    """Measures both sizes and prints peaks and their ratio."""
    peaks: list[float] = []
    print("\nPeak memory of one process (resident set)")
    for fans in (fans_small, fans_large):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "activities.jsonl"
            lines = _simulate_apart(source, fans)
            command = [sys.executable, "-m", "fan_identity.pipelines.cli", "score", str(source)]
            peak = _peak_mb([*command, "--store", f"sqlite:///{folder}/m.db", "--json"])
            print(f"{lines:>12,} activities: {peak:7.0f} MB")
            peaks.append(peak)
    growth = peaks[1] / peaks[0]
    met = peaks[1] < TARGET_MB and growth <= TARGET_GROWTH
    print(
        f"growth {growth:.2f}; target: under {TARGET_MB} MB and at most {TARGET_GROWTH}: {'met' if met else 'MISSED'}"
    )


def _simulate_apart(source: Path, fans: int) -> int:
    """Simulates in a process of its own: its memory must not count."""
    code = (
        "import sys; from pathlib import Path; from fan_identity.benchmarks.memory import simulate; "
        "print(simulate(Path(sys.argv[1]), int(sys.argv[2])))"
    )
    finished = subprocess.run([sys.executable, "-c", code, str(source), str(fans)], capture_output=True, check=True)
    return int(finished.stdout)


def simulate(source: Path, fans: int) -> int:
    """Writes a sale and returns the number of its lines."""
    return write_simulation(SaleSettings(fans=fans, bots=fans // 20), source).lines


def _peak_mb(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"failed: {process.stderr.read().decode() if process.stderr else ''}")
    return usage.ru_maxrss / 1024
