"""What the gates of a decoder of the Llama family are, and what profiles and calibrations call them and theirs."""

GATES = ("attention", "heads", "output", "feed_forward", "neurons", "down")
"""Of a layer, in order: on the inputs of queries, keys and values; on the heads of keys and values, by how far they
attended when they were last asked; on the inputs of what follows attention, and of the gate half of the feed-forward
block; on its neurons, by their gate half; and on the inputs of its last product, by both halves."""

CHANNEL_GATES = tuple(gate for gate in GATES if gate != "heads")
"""Those whose channels are numbers at each position, which can be told apart for all positions of a text together."""

PROMPT_GATE = "prompt"
"""Of a layer, in `advance`: on the neurons of all positions together, by their gate half."""

SINKS = 4
"""The first positions of a sequence, of which all others take part of their attention, whatever stands there (Xiao et
al. 2024): a change there is felt a hundred times as much as elsewhere, so their steps are dense."""

BASIS = "head.basis"
"""In a calibration: the directions [hidden, directions] in which the inputs of the logits vary most."""

FITTED_ON, FITTED_UNDER = "coarse.tokens", "coarse.thresholds"
"""In a calibration: the tokens of windows [windows, n], and the thresholds [points, gates] of gates on channels, that
coarse weights are fitted on, see `coarse_fitting`. A calibration without them is of gates that skip what they leave
out."""


def gate_name(layer: int, gate: str) -> str:
    """What a profile calls one of `GATES` of a layer."""
    return f"layer{layer + 1}.{gate}"


def norms_name(gate: str) -> str:
    """What a calibration calls what the channels of a gate are multiplied by to be their saliency."""
    return f"{gate}.norms"


def care_name(layer: int) -> str:
    """What a calibration calls what the input of a layer is multiplied by to tell how much a position matters there."""
    return gate_name(layer, "care")
