"""A model of texts and the profile that it is served with."""

from collections.abc import Iterable

from models.gating.profile import Profile


class OtherWeights(ValueError):
    """A profile, or what goes with it, is that of other weights than these, or of gates that they do not have."""


def checked_profile(name: str, profile: Profile | None, digest: str, gates: Iterable[str]) -> Profile:
    """The profile, or the dense one where there is none. Raises `OtherWeights`."""
    if profile is None:
        return Profile.dense(name, digest)
    if profile.weights_digest != digest:
        raise OtherWeights(f"the profile of {name} was measured on other weights: run sluice calibrate {name}")
    unknown = sorted(set(profile.points[-1].thresholds) - set(gates))
    if unknown:
        raise OtherWeights(
            f"the profile of {name} has gates that are not there, {unknown[0]}: run sluice calibrate {name}"
        )
    return profile
