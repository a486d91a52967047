"""``make bench``: throughput beside a plain loop, memory, streaming latency, each held against its target."""

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

from . import latency, memory, throughput


def main() -> None:
    """Runs the benchmarks named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=["throughput", "memory", "latency", []], help="all where none")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each contender")
    parser.add_argument("--fans", type=int, default=20_000, help="fans in the simulated sale")
    parser.add_argument("--seconds", type=int, default=30, help="of streaming")
    arguments = parser.parse_args()
    which = arguments.which or ["throughput", "memory", "latency"]
    print(f"{machine()}; Python {platform.python_version()}, Beam {version('apache-beam')}")
    if "throughput" in which:
        throughput.run(arguments.rounds, arguments.fans, arguments.fans // 20)
    if "memory" in which:
        memory.run(arguments.fans, 5 * arguments.fans)
    if "latency" in which:
        latency.run(500, arguments.seconds)


def machine() -> str:
    """The machine, as figures need it beside them."""
    cpu = "unknown CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return f"{os.cpu_count()} x {cpu}, {platform.system()} {platform.release()}"


if __name__ == "__main__":
    main()
