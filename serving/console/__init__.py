"""The operators' console: its JSON API; the page itself is in `serving.pages`."""
