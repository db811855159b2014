"""What a run's gates did, as its context counts it."""

from models.model import GateContext


def test_layers_are_counted_together_as_one_by_one():
    together, alone = GateContext(0.5), GateContext(0.5)
    for skipped in ([3, 0], [1, 2]):
        together.record_all(["first", "second"], [10, 4], skipped)
        for layer, channels, left_out in zip(["first", "second"], [10, 4], skipped, strict=True):
            alone.record(layer, channels, channels - left_out)
    assert together.layers == alone.layers
    assert together.skip_rate == 6 / 28
