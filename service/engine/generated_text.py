"""The text of a generation as it grows: whole characters, and nothing that may yet turn out to be a stop string.

>>> text = GeneratedText(["END"])
>>> text.add(b"The E"), text.add(b"N"), text.add(b"D of it"), text.stopped
('The ', '', '', True)
"""

import codecs
from collections.abc import Sequence


class GeneratedText:
    """Bytes of tokens in, text out, which ends before the first of the `stops`. Bytes that are no UTF-8 become U+FFFD.

    `released` counts the characters that were given out, and `length` those that there are, held back ones included.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self.released = 0
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    @property
    def length(self) -> int:
        return self.released + len(self._held)

    def add(self, more: bytes) -> str:
        """The text that is certain now and was not before."""
        return self._release(self._decoder.decode(more))

    def end(self) -> str:
        """What was held back, at the end of a generation."""
        rest = self._release(self._decoder.decode(b"", final=True))
        if self.stopped:
            return rest
        held, self._held = self._held, ""
        self.released += len(held)
        return rest + held

    def _release(self, more: str) -> str:
        if self.stopped:
            return ""
        text = self._held + more
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            certain, self._held = text[: min(found)], ""
        else:
            keep = max((_beginning(text, stop) for stop in self._stops), default=0)
            certain, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.released += len(certain)
        return certain


def _beginning(text: str, stop: str) -> int:
    """The length of the longest end of a text that a stop string could begin with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
