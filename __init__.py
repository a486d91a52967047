"""fan-identity: tells fans from bots during a ticket sale."""

__version__ = "0.1.0"
