"""`sluice bench roofline`: what one core can do at most, and how near to it a matrix-vector product comes.

Arithmetic on registers alone, memory read at each distance, and the product of one row with a matrix that no cache
holds, whose weights are all that takes time: dense, and with half of its channels skipped. One thread; limits are the
best of several runs, products the median.
"""

import json as json_format
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from loadtest.benchmarks.kernel import medians
from models import kernels

DATATYPES = ("fp32", "bf16", "int8")
ITEM_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
USUAL_CACHES = {1: 32 << 10, 2: 1 << 20, 3: 32 << 20}
"""Bytes by level, where the system does not tell."""
BEYOND_CACHE = 1.5
"""The matrix's weights, as a multiple of the last cache."""
INPUTS = 4096
BLOCK = 64
LEAST_SECONDS = 0.001
LEAST_READ = 1 << 26
"""A single timing lasts so long, or reads so many bytes."""


@dataclass(frozen=True, slots=True)
class Product:
    """One row times a matrix of which some channels are active: how the matrix is packed, median seconds, the bytes of
    weights that these channels have, and the seconds relative to the dense product of the same packing."""

    layout: str
    name: str
    seconds: float
    bytes: int
    of_dense: float

    @property
    def gigabytes_per_second(self) -> float:
        return self.bytes / self.seconds * 1e-9


@dataclass(frozen=True, slots=True)
class Roofline:
    """`gflops` of registers by datatype, a multiply-accumulate being two operations; `bandwidth` in GB/s by what holds
    the memory that is read; `products` with a matrix of the `shape` [outputs, inputs], the dense one of each
    packing first."""

    gflops: dict[str, float]
    bandwidth: dict[str, float]
    datatype: str
    shape: tuple[int, int]
    products: list[Product]


def run(datatype: str = "fp32", repeats: int = 20, json: bool = False) -> dict[str, Any]:
    """Measures, prints tables or JSON, and returns what the JSON holds.

    Raises `RuntimeError` where the kernels were not compiled.
    """
    if kernels.BACKEND != "native":
        raise RuntimeError("the kernels were not compiled here: there is no roofline to measure")
    console = Console(stderr=json, width=max(Console().width, 110))
    with console.status("Measuring arithmetic and memory") as status:
        caches = cache_sizes()
        gflops = {name: peak(name, repeats) for name in DATATYPES}
        bandwidth = bandwidths(caches, repeats)
        status.update("Packing a matrix that no cache holds")
        shape = matrix_shape(int(caches[max(caches)] * BEYOND_CACHE), datatype)
        products = matrix_vector(shape, datatype, repeats)
    roofline = Roofline(gflops, bandwidth, datatype, shape, products)
    result = asdict(roofline) | {"instruction_sets": {name: _registers(name) for name in DATATYPES}}
    if json:
        print(json_format.dumps(result, indent=2))
    else:
        for table in render(roofline):
            console.print(table)
    return result


def cache_sizes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[int, int]:
    """Bytes of the data caches of one core by their level, as Linux tells them."""
    sizes = {}
    for index in sorted(folder.glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            sizes[int((index / "level").read_text())] = int((index / "size").read_text().strip().rstrip("K")) << 10
    return sizes or USUAL_CACHES


def peak(datatype: str, repeats: int) -> float:
    """GFLOP/s of a datatype's instructions on registers alone."""
    from models.kernels import _core

    rounds, seconds = 1000, 0.0
    while seconds < LEAST_SECONDS:
        rounds *= 2
        seconds = _seconds(partial(_core.accumulate, rounds, datatype))
    best = min(_seconds(partial(_core.accumulate, rounds, datatype)) for _ in range(repeats))
    return 2e-9 * rounds * _core.accumulate(1, datatype) / best


def bandwidths(caches: dict[int, int], repeats: int) -> dict[str, float]:
    """GB/s of reading what each of the caches holds, and what none does."""
    sizes = {f"cache {level}": size // 2 for level, size in caches.items()}
    last = max(caches)
    sizes[f"cache {last}"] = min(caches[last] // 2, 8 * caches.get(last - 1, caches[last]))  # others use it as well
    sizes["memory"] = int(caches[last] * BEYOND_CACHE)
    return {name: _bandwidth(size, repeats) for name, size in sizes.items()}


def _bandwidth(size: int, repeats: int) -> float:
    from models.kernels import _core

    array, turns = np.ones(size // 4, np.float32), max(1, LEAST_READ // size)
    best = min(_seconds(partial(_core.read, array, turns)) for _ in range(repeats + 1))
    return size * turns / best * 1e-9


def matrix_shape(least_bytes: int, datatype: str) -> tuple[int, int]:
    """[outputs, inputs] of a matrix of at least so many bytes of weights, in an even number of blocks."""
    pair = 2 * BLOCK
    return -(-least_bytes // (INPUTS * ITEM_BYTES[datatype] * pair)) * pair, INPUTS


def matrix_vector(shape: tuple[int, int], datatype: str, repeats: int) -> list[Product]:
    """One row times the matrix, dense and with half of the channels, in turns: packed for that, by the channels that
    are skipped, and in the blocks of layers for many rows."""
    random = np.random.default_rng(0)
    outputs, inputs = shape
    # Values do not change the time: a few rows, over and over, take less of it to make.
    weight = np.resize(random.standard_normal((BLOCK, inputs), dtype=np.float32), shape)
    row = random.standard_normal((1, inputs), dtype=np.float32)
    products: list[Product] = []
    for by in ("inputs", "outputs"):
        rows, channels = kernels.pack_rows(weight, datatype, by), inputs if by == "inputs" else outputs
        lists: list[tuple[str, NDArray[np.int32] | None]] = [
            ("dense", None),
            (f"half of the {by}, in order", _first_half(channels)),
            (f"half of the {by}, at random", _random_half(channels, random)),
        ]
        calls = [_row_product(rows, row, by, active) for _, active in lists]
        shares = [(name, 1.0 if ids is None else 0.5) for name, ids in lists]
        if by == "inputs":
            # The coarse weights of all inputs, alone and beside those of some that are read in full.
            coarse = kernels.pack_coarse(weight)
            both, some = rows.with_coarse(coarse), _random_half(channels, random)[::8].copy()
            calls += [_row_product(both, row, by, ids, row) for ids in (some[:0], some)]
            share = coarse.nbytes / rows.nbytes
            shares += [
                ("all coarse", share),
                ("a sixteenth at random, the others coarse", share + len(some) / channels),
            ]
            del both, coarse
        products += _products(f"rows by {by}", shares, rows.nbytes, medians(calls, repeats))
        del rows, calls
    matrix = kernels.pack_matrix(weight, datatype)
    del weight
    cases: list[tuple[str, float, NDArray[np.int32] | None, NDArray[np.int32] | None]] = [
        ("dense", 1.0, None, None),
        ("half of the inputs, in order", 0.5, _first_half(inputs), None),
        ("half of the inputs, at random", 0.5, _random_half(inputs, random), None),
        ("half of the outputs, by blocks", 0.5, None, _random_blocks(outputs, random)),
        ("half of both, in order", 0.25, _first_half(inputs), _first_half(outputs)),
    ]
    times = medians([_block_product(matrix, row, read, kept) for _, _, read, kept in cases], repeats)
    return products + _products("blocks", [(name, share) for name, share, _, _ in cases], matrix.nbytes, times)


def _products(layout: str, cases: Sequence[tuple[str, float]], size: int, times: Sequence[float]) -> list[Product]:
    """The first is the dense one; the numbers of the cases are the shares of the weights that they read."""
    return [
        Product(layout, name, seconds, int(share * size), seconds / times[0])
        for (name, share), seconds in zip(cases, times, strict=True)
    ]


def _row_product(
    matrix: kernels.RowMatrix,
    row: NDArray[np.float32],
    by: str,
    active: NDArray[np.int32] | None,
    coarse: NDArray[np.float32] | None = None,
) -> Callable[[], object]:
    if by == "outputs":
        out = np.empty((1, matrix.outputs if active is None else len(active)), np.float32)
        return lambda: kernels.row_matmul(row, matrix, outputs=active, out=out)
    x, out = row if active is None else np.ascontiguousarray(row[:, active]), np.empty((1, matrix.outputs), np.float32)
    return lambda: kernels.row_matmul(x, matrix, inputs=active, coarse=coarse, out=out)


def _block_product(
    matrix: kernels.PackedMatrix,
    row: NDArray[np.float32],
    inputs: NDArray[np.int32] | None,
    outputs: NDArray[np.int32] | None,
) -> Callable[[], object]:
    x = row if inputs is None else np.ascontiguousarray(row[:, inputs])
    out = np.empty((1, matrix.outputs if outputs is None else len(outputs)), np.float32)
    return lambda: kernels.gated_matmul(x, matrix, inputs=inputs, outputs=outputs, out=out)


def _first_half(channels: int) -> NDArray[np.int32]:
    return np.arange(channels // 2, dtype=np.int32)


def _random_half(channels: int, random: np.random.Generator) -> NDArray[np.int32]:
    return np.sort(random.choice(channels, channels // 2, replace=False)).astype(np.int32)


def _random_blocks(channels: int, random: np.random.Generator) -> NDArray[np.int32]:
    blocks = _random_half(channels // BLOCK, random)
    return (blocks[:, None] * BLOCK + np.arange(BLOCK, dtype=np.int32)).ravel().astype(np.int32)


def _seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def _registers(datatype: str) -> str:
    """The instruction set of `peak`: in fp32 the tile unit has no arithmetic of its own."""
    sets = kernels.instruction_sets(datatype)
    return next(name for name in sets if datatype != "fp32" or name != "amx")


def render(roofline: Roofline) -> list[Table]:
    """What the core can do, and the products."""
    limits = Table(title="One core at most")
    limits.add_column("")
    limits.add_column("", justify="right")
    for datatype, gflops in roofline.gflops.items():
        limits.add_row(f"{datatype}, {_registers(datatype)}", f"{gflops:.0f} GFLOP/s")
    for place, bandwidth in roofline.bandwidth.items():
        limits.add_row(place, f"{bandwidth:.1f} GB/s")
    dense = roofline.products[0]
    outputs, inputs = roofline.shape
    table = Table(
        title=f"One row times {inputs} → {outputs}, {roofline.datatype}, {dense.bytes / 1e6:.0f} MB of weights"
    )
    table.add_column("")
    table.add_column("")
    for title in ("ms", "of dense", "GB/s", "of memory's"):
        table.add_column(title, justify="right")
    for product in roofline.products:
        table.add_row(
            product.layout,
            product.name,
            f"{product.seconds * 1e3:.2f}",
            f"{product.of_dense:.3f}",
            f"{product.gigabytes_per_second:.1f}",
            f"{product.gigabytes_per_second / roofline.bandwidth['memory']:.2f}",
        )
    return [limits, table]
