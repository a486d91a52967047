"""The SQLite backend: one file is queue, table, ARM cache, dead letters and activity log."""
