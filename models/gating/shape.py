"""The shape of a gated convolutional network and the arithmetic of its work. Plain data, no torch: serving needs it
too."""

from dataclasses import dataclass

PIXEL_MEAN, PIXEL_DEVIATION = 0.2860, 0.3530
NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One gated 3×3 convolution (stride 1, padding 1) on `size`×`size` positions, followed by a 2×2 max pool where
    `pool`."""

    name: str
    inputs: int
    outputs: int
    size: int
    pool: bool = False

    def macs(self, active_inputs: int, active_outputs: int) -> int:
        """Multiply-accumulates for one image on so many channels."""
        return 9 * self.size**2 * active_inputs * active_outputs


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """`grid`: the image is pooled over grid × grid cells; `evidence`: the number of features that every gate sees of
    that."""

    layers: tuple[LayerShape, ...]
    classes: int
    grid: int = 7
    evidence: int = 32

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense network for one image, without gates."""
        return (
            sum(layer.macs(layer.inputs, layer.outputs) for layer in self.layers)
            + self.layers[-1].outputs * self.classes
        )

    @property
    def gate_macs(self) -> int:
        """What the gates themselves cost at every level: counted as work done."""
        return self.layers[0].size ** 2 * self.evidence + sum(
            (layer.inputs + self.evidence) * layer.outputs for layer in self.layers
        )
