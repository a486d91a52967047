"""Batch jobs beside jobs written by hand."""
