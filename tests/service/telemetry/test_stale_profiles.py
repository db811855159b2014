import asyncio
import gzip
import os
import shutil

import pytest

from models.zoo import fashion_family
from models.zoo.fashion_weights import PACKAGED, Files
from service.telemetry.stale_profiles import StaleProfiles


@pytest.fixture
def files(tmp_path):
    packaged = Files.named(PACKAGED, "fashion")
    if not packaged.profile.exists():
        pytest.skip("the packaged weights are not here")
    for path in (packaged.weights, packaged.calibration, packaged.profile):
        shutil.copy(path, tmp_path)
    return Files.named(tmp_path, "fashion")


@pytest.fixture
def stale(files):
    return StaleProfiles(
        lambda name: fashion_family.measured_files(name, files.profile.parent) if name == "fashion" else None
    )


def looked(stale, *models):
    stale.look(models or ["fashion"])
    return stale.known


def test_a_profile_is_stale_once_the_weights_are_others(files, stale):
    assert looked(stale) == {"fashion": False}
    files.weights.write_bytes(gzip.compress(gzip.decompress(files.weights.read_bytes()) + b" "))
    assert looked(stale) == {"fashion": True}


def test_weights_that_are_only_copied_again_are_the_same(files, stale):
    assert looked(stale) == {"fashion": False}
    os.utime(files.weights)
    assert looked(stale) == {"fashion": False}


def test_a_new_calibration_ends_it(files, stale):
    profile = files.profile.read_text()
    files.profile.write_text(profile.replace('"weights_digest": "', '"weights_digest": "0'))
    assert looked(stale) == {"fashion": True}
    files.profile.write_text(profile)
    assert looked(stale) == {"fashion": False}


def test_unchanged_files_are_not_read_again(stale, monkeypatch):
    looked(stale)
    monkeypatch.setattr("models.zoo.fashion_family.weights_digest", lambda _path: pytest.fail("read again"))
    assert looked(stale) == {"fashion": False}


def test_what_has_no_files_or_cannot_be_read_says_nothing(files, stale):
    files.profile.write_text("{")
    assert looked(stale, "fashion", "elsewhere") == {}
    files.profile.unlink()
    files.weights.unlink()
    assert looked(stale)["fashion"] is False  # the packaged ones are what a load would take now


def test_it_goes_on_looking(files, stale):
    async def follow():
        task = asyncio.create_task(stale.follow(lambda: ["fashion"], seconds=0.01))
        async with asyncio.timeout(10):
            while stale.known != {"fashion": False}:
                await asyncio.sleep(0.01)
            files.weights.write_bytes(gzip.compress(gzip.decompress(files.weights.read_bytes()) + b" "))
            while stale.known != {"fashion": True}:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(follow())
