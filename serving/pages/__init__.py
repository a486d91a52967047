"""Pages for people: one fan's scores and why, and GraphiQL in development."""
