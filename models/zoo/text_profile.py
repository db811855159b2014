"""A model of texts and the profile that it is served with."""

from models.gating.profile import Profile


class OtherWeights(ValueError):
    """A profile, or what goes with it, is that of other weights than these."""


def checked_profile(name: str, profile: Profile | None, digest: str) -> Profile:
    """The profile, or the dense one where there is none. Raises `OtherWeights`."""
    if profile is None:
        return Profile.dense(name, digest)
    if profile.weights_digest != digest:
        raise OtherWeights(f"the profile of {name} was measured on other weights: run sluice calibrate {name}")
    return profile
