"""The token in an ``Authorization`` header."""

_SCHEME = "bearer"


def bearer_token(header: str | None) -> str | None:
    """The token of a header ``Bearer <token>``, or of one that is the token alone, as AppSync's clients send it.

    Source: RFC 6750, 2.1.

    Args:
        header: the header's value, or AppSync's ``authorizationToken``; None where there is none.

    Returns:
        The token, unchecked; None where the header holds none, or is of another scheme.

    >>> bearer_token("bearer  a.b.c"), bearer_token("a.b.c"), bearer_token("Basic Zm9v"), bearer_token("Bearer")
    ('a.b.c', 'a.b.c', None, None)
    """
    words = (header or "").strip(" ").split(" ")
    token = words[-1]
    if len(words) == 1:
        return token if token and token.lower() != _SCHEME else None
    # RFC 9110, 11.1: the scheme's case does not matter; spaces follow it, but none are in a token.
    return token if words[0].lower() == _SCHEME and not any(words[1:-1]) else None
