"""The one family of errors that the service raises on purpose.

Everything below the wire raises these; ``service.protocol.errors`` turns them into HTTP once. ``outcome`` is the value
that the request is counted under in ``sluice_requests_total``.

    >>> str(InvalidRequest("must be a positive number of milliseconds", field="slo_ms"))
    'slo_ms: must be a positive number of milliseconds'
"""

from typing import Literal

Outcome = Literal["ok", "refused", "expired", "cancelled", "invalid", "error"]


class ServiceError(Exception):
    """An error with an HTTP ``status``, a ``message`` for the client and an ``outcome`` for the metrics."""

    status: int = 500
    outcome: Outcome = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(ServiceError):
    """400: the client sent something that cannot be used.

    ``field`` names the part at fault ("" when it is the whole), ``reason`` is the message without it.
    """

    status = 400
    outcome = "invalid"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.reason = message


class TooLong(InvalidRequest):
    """400: a prompt, or a prompt and the answer that is asked for, are more than the model's context holds."""


class Unauthorized(ServiceError):
    """401 or 403: an administrative call without the token, or from elsewhere than loopback where no token is set.

    ``challenge`` says that a token would help: then the status is 401 and the response asks for one.
    """

    outcome = "invalid"

    def __init__(self, message: str, challenge: bool = True) -> None:
        super().__init__(message)
        self.challenge = challenge
        self.status = 401 if challenge else 403


class NotFound(ServiceError):
    """404: no such model, version or route."""

    status = 404
    outcome = "invalid"


class TooLarge(ServiceError):
    """413: the body is over the limit, as sent or once decompressed."""

    status = 413
    outcome = "invalid"


class TooSlow(ServiceError):
    """408: the client did not send its body in time, or read its answer."""

    status = 408
    outcome = "invalid"


class Refused(ServiceError):
    """503: turned away at admission, since even the quality floor's level would miss the deadline.

    ``retry_after_seconds`` is when a request like it would be admitted, at the present rate.
    """

    status = 503
    outcome = "refused"

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Expired(ServiceError):
    """503: its deadline or its own timeout passed while it waited; it was dropped and not computed."""

    status = 503
    outcome = "expired"


class ClientGone(ServiceError):
    """499, as nginx logs it: the client closed its connection, and nobody is left to read an answer."""

    status = 499
    outcome = "cancelled"


class Unavailable(ServiceError):
    """503: the model is loading, unloaded or stopping."""

    status = 503
    outcome = "refused"


class Unsupported(ServiceError):
    """501: a part of the protocol that this server does not implement."""

    status = 501
    outcome = "invalid"


class Internal(ServiceError):
    """500: a fault of the server's own. The message is for the client; the cause goes to the log."""

    status = 500
    outcome = "error"
