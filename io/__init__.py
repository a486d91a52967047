"""Every door to the outside: files, SQLite, the model file, logs, settings and addresses."""
