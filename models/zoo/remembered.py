"""What a function gave for its latest arguments, as much of it as there is room for.

>>> lengths = Remembered(len, cost=lambda text, length: len(text), room=10)
>>> lengths("a whale"), lengths("a whale")
(7, 7)
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """`cost` is what an argument and its result take of the `room`; what was asked for longest ago makes place. One
    that costs more than all of it is not remembered. Calls may overlap in several threads, and two of them for the same
    argument may both ask the function.
    """

    def __init__(self, function: Callable[[K], V], cost: Callable[[K, V], int], room: int) -> None:
        self._function, self._cost, self._room = function, cost, room
        self._found: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._taken = 0
        self._lock = Lock()

    def __call__(self, argument: K) -> V:
        with self._lock:
            known = self._found.get(argument)
            if known is not None:
                self._found.move_to_end(argument)
                return known[0]
        result = self._function(argument)
        cost = self._cost(argument, result)
        if cost <= self._room:
            with self._lock:
                self._keep(argument, result, cost)
        return result

    @property
    def taken(self) -> int:
        """What all that is remembered costs."""
        return self._taken

    def _keep(self, argument: K, result: V, cost: int) -> None:
        if argument in self._found:
            return
        self._found[argument] = result, cost
        self._taken += cost
        while self._taken > self._room:
            self._taken -= self._found.popitem(last=False)[1][1]
