"""`sluice bench kernel`: what skipping saves in the kernels alone, and how fast they are dense, beside torch.

One thread. All variants of a shape take turns, so that a change of the machine's speed meets all of them; times are
medians.
"""

import json as json_format
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models import kernels

if TYPE_CHECKING:
    import torch

SKIP_RATES = (0.0, 0.25, 0.5, 0.75)
HALF = 0.5
"""The skip rate at which other choices of channels than at random are timed too."""
BLOCK = 64
"""Outputs whose weights lie together."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A layer and the number of positions that it is applied to."""

    name: str
    inputs: int
    outputs: int
    positions: int  # rows of a matrix product, positions along each side for a convolution
    kernel: int  # 0: a matrix product


SHAPES = (
    *(
        Shape(f"linear {inputs} → {outputs}, {rows} rows", inputs, outputs, rows, 0)
        for rows in (16, 32, 128)
        for inputs, outputs in ((384, 384), (384, 1536), (1536, 384))
    ),
    *(
        Shape(f"conv 3×3 {inputs} → {outputs}, {side}×{side}", inputs, outputs, side, 3)
        for side, inputs, outputs in (
            (28, 1, 32),
            (28, 32, 64),
            (14, 64, 160),
            (14, 160, 160),
            (7, 160, 352),
            (7, 352, 352),
        )
    ),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Median seconds of one shape: dense, by share of inputs and outputs skipped, and torch's own layer."""

    shape: str
    dense_macs: int
    seconds: dict[float, float]  # by the share of inputs and, the same, of outputs that are skipped, at random
    blocks_seconds: float  # half at random, the outputs by whole blocks
    in_order_seconds: float  # the first half of the channels kept
    torch_seconds: float | None
    torch_packed_seconds: float | None  # with its weights packed beforehand, as ours are and torch.compile does it

    @property
    def gflops(self) -> float:
        """Dense arithmetic rate; a multiply-accumulate is two operations."""
        return 2e-9 * self.dense_macs / self.seconds[0.0]

    def of_dense(self, skip_rate: float) -> float:
        """Time at a skip rate, as a share of the dense time."""
        return self.seconds[skip_rate] / self.seconds[0.0]


def run(repeats: int = 100, json: bool = False, datatype: str = "fp32") -> dict[str, Any]:
    """Measures every shape that the datatype is for, prints a table or JSON and returns what the JSON holds.

    Torch's times are left out where it is not installed. Raises `ValueError` for an unknown datatype.
    """
    instruction_set = kernels.instruction_set(datatype)
    shapes = [shape for shape in SHAPES if datatype != "int8" or not shape.kernel]
    console = Console(stderr=json, width=max(Console().width, 150))
    with console.status("Measuring the kernels") as status:
        measurements = []
        for shape in shapes:
            status.update(f"Measuring {shape.name}")
            measurements.append(measure(shape, repeats, datatype))
    result = {
        "backend": kernels.BACKEND,
        "datatype": datatype,
        "instruction_set": instruction_set,
        "repeats": repeats,
        "shapes": [asdict(measurement) | {"gflops": measurement.gflops} for measurement in measurements],
    }
    if json:
        print(json_format.dumps(result, indent=2))
    else:
        console.print(render(measurements, datatype))
    return result


def measure(shape: Shape, repeats: int, datatype: str = "fp32") -> Measurement:
    """Times one shape at every skip rate and in torch, in turns."""
    random = np.random.default_rng(0)
    weight_shape = (shape.outputs, shape.inputs, *(shape.kernel, shape.kernel)[: 2 if shape.kernel else 0])
    weight = random.standard_normal(weight_shape, dtype=np.float32)
    kept = [_at_random(shape, skip_rate, random) for skip_rate in SKIP_RATES]
    kept += [_blocks_at_random(shape, random), _in_order(shape)]
    calls = [_gated(shape, weight, *lists, random, datatype) for lists in kept]
    own = _torch_layers(shape, weight, random, datatype)
    own_calls = [call for call in (own.eager, own.packed) if call] if own else []
    with own.context if own else nullcontext():
        times = medians([*calls, *own_calls], repeats)
    own_times = [*times[len(calls) :], None, None]
    positions = shape.positions**2 if shape.kernel else shape.positions
    return Measurement(
        shape=shape.name,
        dense_macs=positions * weight.size,
        seconds=dict(zip(SKIP_RATES, times, strict=False)),
        blocks_seconds=times[len(SKIP_RATES)],
        in_order_seconds=times[len(SKIP_RATES) + 1],
        torch_seconds=own_times[0],
        torch_packed_seconds=own_times[1],
    )


def render(measurements: list[Measurement], datatype: str = "fp32") -> Table:
    """The measurements as a table; a one-channel input has nothing to skip there, so only its outputs are."""
    table = Table(title=f"Gated kernels, {datatype}, one thread, {kernels.instruction_set(datatype)}")
    table.add_column("layer")
    for title in ("dense µs", "GFLOP/s", "torch µs", "of torch", "packed µs", "of packed"):
        table.add_column(title, justify="right")
    for skip_rate in SKIP_RATES[1:]:
        table.add_column(f"skip {skip_rate:.0%} in, out", justify="right")
    for title in ("by blocks", "in order"):
        table.add_column(f"{HALF:.0%}, {title}", justify="right")
    for measurement in measurements:
        dense = measurement.seconds[0.0]
        torch_times = (measurement.torch_seconds, measurement.torch_packed_seconds)
        table.add_row(
            measurement.shape,
            f"{dense * 1e6:.1f}",
            f"{measurement.gflops:.0f}",
            *(text for own in torch_times for text in ((f"{own * 1e6:.1f}", f"{dense / own:.2f}") if own else "––")),
            *(f"{measurement.of_dense(skip_rate):.3f}" for skip_rate in SKIP_RATES[1:]),
            f"{measurement.blocks_seconds / dense:.3f}",
            f"{measurement.in_order_seconds / dense:.3f}",
        )
    table.caption = (
        "Skips: share of the dense time. Channels are skipped at random; by blocks: inputs at random, outputs "
        f"in whole blocks of {BLOCK}; in order: the last ones, as in a network whose channels are ordered by how often "
        "they are active. torch: its own layer; packed: the same with weights packed beforehand, as ours are."
    )
    return table


Channels = NDArray[np.int32] | None


def _at_random(shape: Shape, skip_rate: float, random: np.random.Generator) -> tuple[Channels, Channels]:
    def active(channels: int) -> Channels:
        if skip_rate == 0 or channels == 1:
            return None
        kept = random.choice(channels, round(channels * (1 - skip_rate)), replace=False)
        return np.sort(kept).astype(np.int32)

    return active(shape.inputs), active(shape.outputs)


def _blocks_at_random(shape: Shape, random: np.random.Generator) -> tuple[Channels, Channels]:
    """Half of the outputs, as whole blocks as far as they go; the last of the chosen ones may be cut."""
    inputs, _ = _at_random(shape, HALF, random)
    blocks = np.arange(shape.outputs, dtype=np.int32) // BLOCK
    chosen = [np.flatnonzero(blocks == block) for block in random.permutation(blocks[-1] + 1)]
    return inputs, np.sort(np.concatenate(chosen)[: round(shape.outputs * HALF)]).astype(np.int32)


def _in_order(shape: Shape) -> tuple[Channels, Channels]:
    def active(channels: int) -> Channels:
        return None if channels == 1 else np.arange(round(channels * HALF), dtype=np.int32)

    return active(shape.inputs), active(shape.outputs)


def _gated(
    shape: Shape,
    weight: NDArray[np.float32],
    inputs: Channels,
    outputs: Channels,
    random: np.random.Generator,
    datatype: str,
) -> Callable[[], object]:
    n_inputs = shape.inputs if inputs is None else len(inputs)
    n_outputs = shape.outputs if outputs is None else len(outputs)
    if shape.kernel:
        convolution = kernels.pack_convolution(weight, padding=1, datatype=datatype)
        image = random.standard_normal((shape.positions, shape.positions, n_inputs), dtype=np.float32)
        pixels = np.empty((shape.positions, shape.positions, n_outputs), np.float32)
        return lambda: kernels.gated_conv2d(image, convolution, inputs=inputs, outputs=outputs, out=pixels)
    matrix = kernels.pack_matrix(weight, datatype)
    rows = random.standard_normal((shape.positions, n_inputs), dtype=np.float32)
    products = np.empty((shape.positions, n_outputs), np.float32)
    return lambda: kernels.gated_matmul(rows, matrix, inputs=inputs, outputs=outputs, out=products)


@dataclass(frozen=True, slots=True)
class _TorchLayers:
    eager: Callable[[], object]
    packed: Callable[[], object] | None
    context: AbstractContextManager[None]  # to be called in: entering it each time would cost as much as a small layer


def _torch_layers(
    shape: Shape, weight: NDArray[np.float32], random: np.random.Generator, datatype: str = "fp32"
) -> _TorchLayers | None:
    """Torch's own layer as a user calls it, its convolution in the layout that it is fastest in, and the operator that
    torch.compile makes of it when weights are frozen; None without torch. In bf16 its activations are bf16 as well, so
    that it need not convert them; in int8 it is the dynamically quantised layer, whose weights are packed anyway."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(1)
    functional, onednn = torch.nn.functional, torch.ops.mkldnn
    own_type = torch.bfloat16 if datatype == "bf16" else torch.float32
    own_weight = torch.from_numpy(weight).to(own_type)
    if not shape.kernel:
        rows = torch.from_numpy(random.standard_normal((shape.positions, shape.inputs), dtype=np.float32)).to(own_type)
        if datatype == "int8":
            layer = torch.ops.quantized.linear_prepack(_quantised(own_weight), None)
            return _TorchLayers(lambda: torch.ops.quantized.linear_dynamic(rows, layer), None, torch.inference_mode())
        matrix = onednn._reorder_linear_weight(own_weight, shape.positions)
        return _TorchLayers(
            lambda: functional.linear(rows, own_weight),
            lambda: onednn._linear_pointwise(rows, matrix, None, "none", [], ""),
            torch.inference_mode(),
        )
    size = (1, shape.inputs, shape.positions, shape.positions)
    image = torch.from_numpy(random.standard_normal(size, dtype=np.float32)).to(own_type)
    if shape.inputs > 1:
        image = image.contiguous(memory_format=torch.channels_last)
        own_weight = own_weight.contiguous(memory_format=torch.channels_last)
    ones = [1, 1]  # padding, stride and dilation
    kernel = onednn._reorder_convolution_weight(own_weight, ones, ones, ones, 1, list(size))
    return _TorchLayers(
        lambda: functional.conv2d(image, own_weight, padding=1),
        lambda: onednn._convolution_pointwise(image, kernel, None, ones, ones, ones, 1, "none", [], ""),
        torch.inference_mode(),
    )


def _quantised(weight: "torch.Tensor") -> "torch.Tensor":
    """Whole numbers with a scale for each output, as ours are."""
    import torch

    scales = weight.abs().amax(1).double() / 127
    zeros = torch.zeros(len(weight), dtype=torch.long)
    with warnings.catch_warnings():  # torch means to drop quantised tensors, but not yet what replaces this layer
        warnings.simplefilter("ignore")
        return torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)


def medians(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of each of the calls, which take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, own in zip(calls, times, strict=True):
            call()  # what ran before has left its own data in the caches
            start = time.perf_counter()
            call()
            if turn:
                own.append(time.perf_counter() - start)
    return [median(own) for own in times]
