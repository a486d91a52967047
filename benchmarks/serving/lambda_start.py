"""What the Lambda handlers take to start: time and memory of their imports, byte code compiled, beside Python alone."""

import compileall
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..streams.rounds import verdict

_ROOT = Path(__file__).parents[2]

# The high-water mark of this program's own memory: getrusage would count what was there before exec.
_MEASURE = """
import sys, time
began, used = time.perf_counter(), time.process_time()
for name in sys.argv[1:]:
    __import__(name)
took = 1_000 * (time.perf_counter() - began), 1_000 * (time.process_time() - used)
size = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(*took, int(size.split()[1]) / 1_024)
"""


@dataclass(frozen=True)
class Handler:
    """What is imported, and what it may take."""

    name: str
    modules: tuple[str, ...]
    most_ms: float | None = None
    most_mb: float | None = None


HANDLERS = (
    Handler("Python alone", ()),
    Handler("getArmScore", ("fan_identity.serving.arm_handler", "fan_identity.io.redis_lookup"), 300, 80),
    Handler("validateToken", ("fan_identity.serving.authorizer",), 300, 80),
    Handler(
        "both",
        ("fan_identity.serving.arm_handler", "fan_identity.io.redis_lookup", "fan_identity.serving.authorizer"),
        300,
        80,
    ),
    Handler("resolveField (GraphQL)", ("fan_identity.serving.appsync",), 600, 120),
)


def run(rounds: int, handlers: tuple[Handler, ...] = HANDLERS) -> bool:
    """Measures each in new processes, taking turns, and prints the medians.

    Returns:
        Whether the targets are met.
    """
    for folder in ("domain", "io", "serving"):
        compileall.compile_dir(_ROOT / folder, quiet=2)
    print(f"\nLambda handlers: imports in a new process, medians of {rounds}")
    print(f"{'':24}{'ms':>8}{'CPU ms':>8}{'MB RSS':>8}")
    found: dict[str, list[list[float]]] = {handler.name: [] for handler in handlers}
    for _ in range(rounds):
        for handler in handlers:
            told = subprocess.run(
                [sys.executable, "-c", _MEASURE, *handler.modules], capture_output=True, text=True, check=True
            )
            found[handler.name].append([float(number) for number in told.stdout.split()])
    all_met = True
    for handler in handlers:
        took, cpu, size = (statistics.median(column) for column in zip(*found[handler.name], strict=True))
        line = f"{handler.name:24}{took:>8.0f}{cpu:>8.0f}{size:>8.0f}"
        if handler.most_ms is not None and handler.most_mb is not None:
            met = took < handler.most_ms and size < handler.most_mb
            all_met &= met
            line += f"   under {handler.most_ms:.0f} ms and {handler.most_mb:.0f} MB: {verdict(met)}"
        print(line)
    return all_met
