"""What is served of a model whose profile belongs to other weights than are there, or that has none."""

import logging
from collections.abc import Callable
from typing import TypeVar

from models.zoo.text_profile import OtherWeights

log = logging.getLogger(__name__)

M = TypeVar("M")


def measured_or_dense(
    measured: Callable[[], M] | None, dense: Callable[[], M], served: str, calibrate: str, packaged: bool
) -> M:
    """The model with its profile, as `measured` opens it. Without one (None), or where that is for other weights, it is
    dense, and the log says why and the command that makes one: `calibrate` is what stands behind "sluice calibrate".
    What comes with Sluice belongs together: of a `packaged` model `OtherWeights` is raised."""
    why = "it has no profile"
    if measured is not None:
        try:
            return measured()
        except OtherWeights as error:
            if packaged:
                raise OtherWeights(f"{error}: run sluice calibrate {served.partition(':')[0]}") from None
            why = str(error)
    log.warning("%s is served dense: %s; sluice calibrate %s makes one", served, why, calibrate)
    return dense()
