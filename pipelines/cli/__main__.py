"""``python -m fan_identity.pipelines.cli`` is ``fan-identity``."""

from .main import main

main()
