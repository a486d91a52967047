"""Clients of the services the API asks."""
