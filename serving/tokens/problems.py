"""Why a token is refused: for the log and the metrics. A caller outside learns only that it was."""

from enum import StrEnum


class TokenProblem(StrEnum):
    """What is wrong with a token."""

    TOO_LARGE = "TOO_LARGE"
    MALFORMED = "MALFORMED"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    WRONG_TYPE = "WRONG_TYPE"
    CRITICAL_HEADER = "CRITICAL_HEADER"
    WRONG_ALGORITHM = "WRONG_ALGORITHM"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    MISSING_CLAIM = "MISSING_CLAIM"
    INVALID_CLAIM = "INVALID_CLAIM"
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    WRONG_ISSUER = "WRONG_ISSUER"
    WRONG_AUDIENCE = "WRONG_AUDIENCE"
    WRONG_USE = "WRONG_USE"
    INVALID_SUBJECT = "INVALID_SUBJECT"
    INVALID_MEMBER = "INVALID_MEMBER"


class TokenError(Exception):
    """A token is refused. The message is the code alone: nothing of the token.

    Args:
        code: why.
    """

    def __init__(self, code: TokenProblem) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return self.code.value
