"""That this process is to end: its sources read no more, and what was read is finished."""

import threading

draining = threading.Event()
"""Set to end the streaming sources of this process after the batch they are on; everything read is finished first.

One per process, as signals are. On a cluster the runner drains instead."""
