"""The trained network as it is packaged, on the sample of test images that comes with it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from models.gating.measurement import measure, work_by_difficulty
from models.zoo import catalog, fashion, fashion_data
from models.zoo.fashion_family import fashion_files
from models.zoo.fashion_weights import PACKAGED, Files, load_calibration, save_calibration


@pytest.fixture(scope="module")
def model():
    return catalog.load("fashion")


@pytest.fixture(scope="module")
def sample():
    return fashion_data.sample()


@pytest.fixture(scope="module")
def measured(model, sample):
    levels = (0.0, model.profile.lowest_level(1 / 3), model.profile.lowest_level(1 / 5), 1.0)
    return [measure(model, sample.images, level) for level in levels]


def test_it_is_accurate_and_stays_so(measured, sample):
    """600 images: one point of accuracy is six images, and the standard error is one point."""
    dense, third, fifth, most = (float((m.predicted == sample.labels).mean()) for m in measured)
    assert dense >= 0.91
    assert third >= dense - 0.02
    assert fifth >= dense - 0.02
    assert most >= dense - 0.03


def test_a_level_skips_what_the_profile_says(model, measured):
    for one in measured:
        expected = model.profile.at(one.level)
        assert one.macs_ratio.mean() == pytest.approx(expected.macs_ratio, rel=0.05)
        assert one.skip_rate.mean() == pytest.approx(expected.skip_rate, abs=0.02)


def test_a_hard_image_gets_more_than_an_easy_one(measured):
    hardest, *_, easiest = work_by_difficulty(measured[2], measured[0].confidence)
    assert hardest >= 1.15 * easiest


def test_the_profile_is_a_dial(model):
    points = model.profile.points
    assert len(points) >= 12
    assert points[-1].macs_ratio <= 1 / 6
    work = [point.macs_ratio for point in points]
    assert work == sorted(work, reverse=True)
    for point in points[1:]:
        assert point.agreement_lower < point.agreement <= 1
        assert point.accuracy is not None and point.accuracy_lower is not None
        assert point.accuracy_lower < point.accuracy


def test_the_baseline_has_the_same_channels_for_every_image(sample):
    static = fashion.load(Files.named(PACKAGED, "fashion-static"), "static")
    one = measure(static, sample.images[:50], 0.8)
    assert np.ptp(one.macs_ratio) == 0


def test_a_profile_of_other_weights_is_refused(tmp_path):
    packaged = fashion_files()
    for path in (packaged.weights, packaged.calibration, packaged.profile):
        shutil.copy(path, tmp_path / path.name)
    files = Files.named(tmp_path, "fashion")
    stale = json.loads(files.profile.read_text()) | {"weights_digest": "0" * 64}
    files.profile.write_text(json.dumps(stale))
    with pytest.raises(ValueError, match="other weights"):
        fashion.load(files)


def test_the_weights_are_small():
    assert sum(path.stat().st_size for path in PACKAGED.glob("*.safetensors*")) <= 12_000_000


def test_tables_of_another_calibration_are_refused(tmp_path):
    """Its levels would skip something else than the profile promises."""
    files = Files.named(PACKAGED, "fashion")
    tables = load_calibration(files.calibration)
    own = Files(files.weights, tmp_path / "fashion.calibration.safetensors", files.profile)
    save_calibration(replace(tables, thresholds=tables.thresholds * 3), own.calibration)
    with pytest.raises(ValueError, match="was not measured with"):
        fashion.load(own)
    save_calibration(replace(tables, means=tables.means[:3], variances=tables.variances[:3]), own.calibration)
    with pytest.raises(ValueError, match="has no tensor"):
        fashion.load(own)
