"""What a request is known by: the client's `x-request-id` where it sends one, else one that is made here."""

import re
import secrets
from itertools import count

HEADER = b"x-request-id"
LENGTH = 128
_REFUSED = re.compile(rb"[^A-Za-z0-9._~:/+=@-]+")


class RequestIds:
    """Makes ids, and takes those of clients as far as they can be trusted with a header and a log line.

    >>> RequestIds().of(b'order 7"\\x1b[2J')
    b'order72J'
    """

    def __init__(self) -> None:
        self._process = secrets.token_hex(6).encode()
        self._numbers = count(1)

    def make(self) -> bytes:
        """One that no other request has: the process at random, then a number."""
        return b"%s-%x" % (self._process, next(self._numbers))

    def of(self, given: bytes | None) -> bytes:
        """``given`` without what is no letter, digit or one of ``._~:/+=@-``, at most `LENGTH` bytes; one that is made
        where nothing is left.
        """
        if given is None:
            return self.make()
        return _REFUSED.sub(b"", given[: 4 * LENGTH])[:LENGTH] or self.make()
