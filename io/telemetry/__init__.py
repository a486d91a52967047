"""What tells how a process is doing: totals, metrics and traces."""
