"""Amazon SQS, FIFO and standard queues; ``queue.py`` has the queue, the other modules its parts.

Permissions a worker needs: ``sqs:GetQueueUrl``, ``GetQueueAttributes``; to send ``SendMessage``; to receive
``ReceiveMessage``, ``DeleteMessage``, ``ChangeMessageVisibility``.
"""
