"""Clients of the services the API asks, one module each; ``docs/upstreams.md`` describes their protocols."""
