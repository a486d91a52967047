"""The fan-identity command, one module a command."""
