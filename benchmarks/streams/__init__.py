"""Benchmarks of the streaming workers on real servers (``make services``), each beside peers that do the same by hand.

``python -m fan_identity.benchmarks.streams.run`` runs them, ``…streams.soak`` watches memory over half an hour.
"""
