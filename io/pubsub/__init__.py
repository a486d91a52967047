"""Google Cloud Pub/Sub as a queue; ``queue.py`` has the queue, the other modules its parts.

Roles a worker needs: ``pubsub.publisher`` on the topic; ``pubsub.subscriber`` and ``pubsub.viewer`` on the
subscription.
Importing it imports gRPC: import it where an address asks for it.
"""
