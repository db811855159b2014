import gzip
import os
import shutil

import pytest

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


def test_a_profile_is_stale_once_the_weights_are_others(files):
    stale = StaleProfiles({"fashion": files}.get)
    assert stale(["fashion"]) == {"fashion": False}
    files.weights.write_bytes(gzip.compress(gzip.decompress(files.weights.read_bytes()) + b" "))
    assert stale(["fashion"]) == {"fashion": True}


def test_weights_that_are_only_copied_again_are_the_same(files):
    stale = StaleProfiles({"fashion": files}.get)
    assert stale(["fashion"]) == {"fashion": False}
    os.utime(files.weights)
    assert stale(["fashion"]) == {"fashion": False}


def test_a_new_calibration_ends_it(files):
    profile = files.profile.read_text()
    files.profile.write_text(profile.replace('"weights_digest": "', '"weights_digest": "0'))
    stale = StaleProfiles({"fashion": files}.get)
    assert stale(["fashion"]) == {"fashion": True}
    files.profile.write_text(profile)
    assert stale(["fashion"]) == {"fashion": False}


def test_unchanged_files_are_not_read_again(files, monkeypatch):
    stale = StaleProfiles({"fashion": files}.get)
    stale(["fashion"])
    monkeypatch.setattr("service.telemetry.stale_profiles.weights_digest", lambda _path: pytest.fail("read again"))
    assert stale(["fashion"]) == {"fashion": False}


def test_what_has_no_files_or_cannot_be_read_says_nothing(files):
    stale = StaleProfiles({"fashion": files}.get)
    files.profile.write_text("{")
    assert stale(["fashion", "elsewhere"]) == {}
    files.profile.unlink()
    assert stale(["fashion"]) == {}
