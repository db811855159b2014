"""`python -m loadtest.keeper COMMAND…`: runs a command, and ends it with all it started once standard input closes.

The other end of that pipe is the benchmark's, and the system closes it however the benchmark ends. One that was killed
cannot clean up after itself.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

STOP_SECONDS = 10.0
"""How long a command may take to end by itself when it is asked to."""

_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"


def keep(command: Sequence[str]) -> int:
    """Runs the command until it ends or standard input closes; its status, or 128 + the signal that ended it."""
    if _LINUX:
        # Processes whose parent ends, daemons too, become children of this one, so that none is lost sight of.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_input, args=(process,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    _end_descendants(process.pid)
    return status if status >= 0 else 128 - status


def _end_with_input(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _end_descendants(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    while _LINUX and (left := list(_descendants(os.getpid()))):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _descendants(ancestor: int) -> Iterator[int]:
    """Living processes that `ancestor` started, or that they did."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name of the program, in parentheses, may hold anything.
            state, parent = stat.read_text(errors="replace").rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    waiting = [ancestor]
    while waiting:
        found = children.get(waiting.pop(), [])
        waiting += found
        yield from found


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
