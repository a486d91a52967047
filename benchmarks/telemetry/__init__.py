"""What telemetry costs: beside the same program with telemetry off, and with its hooks taken out."""
