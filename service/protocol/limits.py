"""What a request may cost before anything is known about it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request; what is over them gets 413 (bodies) or 400 (counts).

    ``body_bytes`` holds for the body as sent and again once decompressed. ``json_bytes`` holds for the JSON part alone:
    Python objects take ten and more times the bytes of their JSON text, and nothing else runs while they are made, so
    large tensors have to come as binary data. ``values`` holds for the values in the JSON, on which that time depends,
    and for the elements of a BYTES tensor, which are Python objects too.
    """

    body_bytes: int = 32 * 1024 * 1024
    json_bytes: int = 8 * 1024 * 1024
    values: int = 600_000
    tensors: int = 64
    rank: int = 16
