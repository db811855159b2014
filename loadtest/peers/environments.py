"""Virtual environments for peers whose pins conflict with ours, made when they are first needed.

Such an environment has the peer's packages, each with its version. What it lacks (torch, the network, this package) it
takes from the environment that the benchmark runs in, so that every peer computes with the same torch.
"""

import hashlib
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from loadtest.processes import ServerFailed

Say = Callable[[str], None]
REQUIREMENTS = Path(__file__).parent / "requirements"
_STAMP = "sluice-installed"
_PIP_HERE = find_spec("pip") is not None
_INSTALL = ("install", "--disable-pip-version-check", "--no-input", "--timeout", "20", "--retries", "2")


def environment(name: str, folder: Path, say: Say = lambda _: None) -> Path:
    """The interpreter of the environment in `folder`/NAME, which has what `requirements/NAME.txt` lists.

    It is made where it is missing or was made for other requirements; `say` hears of each package. Raises
    `ServerFailed` with pip's last words where that does not work.
    """
    own = folder / name
    python, stamp = own / "bin" / "python", own / _STAMP
    requirements = REQUIREMENTS / f"{name}.txt"
    wanted = hashlib.sha256(f"{requirements.read_text()}{sys.version}{_site_folders()}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"making an environment for {name} in {own} (the first time only)")
    shutil.rmtree(own, ignore_errors=True)
    try:
        venv.create(own, with_pip=not _PIP_HERE)
    except (subprocess.CalledProcessError, OSError) as error:
        raise ServerFailed(f"no environment could be made in {own}: {error}") from None
    # Installing from here saves the seconds that it takes to give the environment a pip of its own.
    pip = (sys.executable, "-m", "pip", "--python", str(own)) if _PIP_HERE else (str(python), "-m", "pip")
    _install((*pip, *_INSTALL, "-r", str(requirements)), say)
    lines = (f"import site; site.addsitedir({path!r})" for path in _site_folders())
    # Their names come first, these are looked at only for what they lack.
    Path(_purelib(own), "sluice.pth").write_text("\n".join(lines) + "\n")
    stamp.write_text(wanted)
    return python


def _install(command: Sequence[str], say: Say) -> None:
    # The user's constraints are for an environment that this one is apart from.
    variables = {name: value for name, value in os.environ.items() if name not in ("PIP_CONSTRAINT", "PYTHONPATH")}
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=variables
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line.rstrip())
            if line.startswith(("Collecting", "Installing")):
                say(line.strip()[:100])
    if pip.returncode:
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        reason = "\n".join(errors[-3:])
        raise ServerFailed(f"its packages could not be installed; is the package index reachable?\n{reason}")


def _site_folders() -> list[str]:
    """Where the packages of this environment are, and the folder that this package was imported from."""
    checkout = str(Path(__file__).parents[2])
    return list(dict.fromkeys((*site.getsitepackages(), checkout)))


def _purelib(prefix: Path) -> str:
    return sysconfig.get_path("purelib", "venv", {"base": str(prefix), "platbase": str(prefix)})
