"""The image network's shape, shared by serving (no torch), training and calibration."""

from models.gating.shape import LayerShape, NetworkShape

SHAPE = NetworkShape(
    layers=(
        LayerShape("conv1", 1, 32, 28),
        LayerShape("conv2", 32, 64, 28, pool=True),
        LayerShape("conv3", 64, 160, 14),
        LayerShape("conv4", 160, 160, 14, pool=True),
        LayerShape("conv5", 160, 352, 7),
        LayerShape("conv6", 352, 352, 7),
    ),
    classes=10,
)
"""157 M multiply-accumulates. Most of them come late, where the gates know most about the image."""

LEAST_KEPT = 0.32
"""The share of channels kept at the most-skipping point, in training and in calibration."""
