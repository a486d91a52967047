"""What every Lambda of ours asks of its invocation's context."""

import uuid


def invocation_id(context: object) -> str:
    """Names an invocation: by Lambda's own id where there is one.

    Args:
        context: of Lambda, or None outside it.
    """
    own = getattr(context, "aws_request_id", None)
    return own if isinstance(own, str) and own else uuid.uuid4().hex
