"""A thread that runs models, one run at a time."""

import logging
import threading
from collections.abc import Callable

from models.kernels import Threads

log = logging.getLogger(__name__)

Job = Callable[[], None]


class Executor:
    """Asks `source` for a job until told to retire; sleeps when there is none, until rung.

    `source` returns None when there is no work. It then owes the executor one `ring`, and only one, when there is some
    again, which lets the bell be a bare lock: the cheapest way for one thread to wake another.
    """

    def __init__(self, name: str, source: "Callable[[Executor], Job | None]", threads: Threads | None = None) -> None:
        """`threads` are its own, for its runs to share their work among."""
        self.name = name
        self.threads = threads
        self.retired = False
        self._source = source
        self._bell = threading.Lock()
        self._bell.acquire()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ring(self) -> None:
        """Wakes an executor whose source gave it nothing."""
        self._bell.release()

    def join(self, timeout: float) -> None:
        """Waits for a retired executor to end, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while not self.retired:
            try:
                job = self._source(self)
                if job is None:
                    self._bell.acquire()
                else:
                    job()
            except Exception:
                # A fault of ours must not leave the server with a core less.
                log.exception("executor %s goes on after a fault", self.name)
