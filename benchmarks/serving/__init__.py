"""The API beside what one would write by hand: ``make bench-serving``."""
