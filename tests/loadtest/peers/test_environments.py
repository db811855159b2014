import subprocess
import zipfile

import pytest

from loadtest.peers import environments
from loadtest.peers.environments import REQUIREMENTS, environment
from loadtest.processes import ServerFailed


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """An index of two packages: a name that is nowhere else, and a second version of one that this environment has."""
    index = tmp_path / "index"
    index.mkdir()
    _wheel(index, "peer_server", "1.0", "NAME = 'peer'")
    _wheel(index, "orjson", "0.0.1", "OLD = True")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    return tmp_path


def _wheel(index, name, version, source):
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", source)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_it_has_its_own_packages_and_borrows_the_rest(packages):
    (packages / "peer.txt").write_text("peer_server==1.0\norjson==0.0.1\n")
    said: list[str] = []
    python = environment("peer", packages / "made", said.append)
    source = (
        "import peer_server, orjson, numpy, loadtest.peers.network as ours\n"
        "print(orjson.OLD, numpy.__file__, ours.__file__)"
    )
    done = subprocess.run([python, "-c", source], capture_output=True, text=True, cwd=packages)
    assert done.returncode == 0, done.stderr
    import numpy

    import loadtest.peers.network as ours

    assert done.stdout.split() == ["True", numpy.__file__, ours.__file__]
    assert said
    said.clear()
    assert environment("peer", packages / "made", said.append) == python
    assert said == []


def test_other_requirements_make_it_anew(packages):
    (packages / "peer.txt").write_text("peer_server==1.0\n")
    environment("peer", packages / "made")
    (packages / "peer.txt").write_text("orjson==0.0.1\n")
    python = environment("peer", packages / "made")
    assert subprocess.run([python, "-c", "import peer_server"], capture_output=True).returncode == 1


def test_an_index_that_has_them_not(packages):
    (packages / "peer.txt").write_text("no_such_server==1.0\n")
    for _ in range(2):
        with pytest.raises(ServerFailed, match=r"(?s)index reachable.*no_such_server"):
            environment("peer", packages / "made")


def test_every_package_is_pinned():
    files = list(REQUIREMENTS.glob("*.txt"))
    assert {file.stem for file in files} == {"bentoml", "ray"}
    for file in files:
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert all("==" in line for line in lines)
        # Those come from the environment of the benchmark, so that all compute with the same.
        assert not any(line.startswith(("torch==", "sluice")) for line in lines)
