"""What OpenTelemetry's own environment variables say of exporting.

Source: OpenTelemetry specification, "Environment Variable Specification" and "Protocol Exporter".
"""

import os
from collections.abc import Mapping


def is_disabled(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether all of it is switched off, ``OTEL_SDK_DISABLED``."""
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_sent(signal: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a collector is named, and the signal not turned off.

    Args:
        signal: ``TRACES`` or ``METRICS``, as in the variables' names.
        environment: where the variables are.
    """
    if is_disabled(environment) or environment.get(f"OTEL_{signal}_EXPORTER", "otlp").strip().lower() not in (
        "",
        "otlp",
    ):
        return False
    names = (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(environment.get(name, "").strip() for name in names)
