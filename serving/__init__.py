"""Lookups while the fan waits (never imports Beam)."""
