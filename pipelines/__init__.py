"""The streaming workers, their registry and the command line."""
