"""``make bench-serving``: the ARM endpoint and GraphQL beside peers; what the Lambda handlers take to start."""

import argparse
import platform
from importlib.metadata import version

from ..run import machine  # pyright: ignore[reportPrivateUsage]
from . import arm, graphql, lambda_start

PARTS = ("arm", "graphql", "lambda")


def main() -> None:
    """Runs the parts named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all where none")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each contender")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--connections", type=int, default=64, help="of the load")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    print(f"{machine()}; Python {platform.python_version()}, uvicorn {version('uvicorn')}")
    if "arm" in parts:
        arm.run(arguments.rounds, arguments.seconds, arguments.connections)
    if "graphql" in parts:
        graphql.run(arguments.rounds, arguments.seconds)
    if "lambda" in parts:
        lambda_start.run(arguments.rounds)


if __name__ == "__main__":
    main()
