"""Bounded jobs: scoring files, the demo, the simulator, model training."""
