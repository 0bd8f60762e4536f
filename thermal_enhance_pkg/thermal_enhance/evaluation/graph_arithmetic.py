"""How much arithmetic a graph is, counted from its file; and how fast this machine multiplies matrices."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

GEMM_SIZES = (512, 1024, 2048)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Arithmetic:
    """Multiply-accumulates of a graph.

    Attributes:
        macs: in all; one is two floating-point operations.
        by_operator: by kind of node.
    """

    macs: int
    by_operator: Mapping[str, int] = field(default_factory=dict)

    @property
    def gflop(self) -> float:
        """Floating-point operations, 1e9."""
        return 2e-9 * self.macs


def count(path: Path) -> Arithmetic:
    """Count the multiply-accumulates of convolutions and matrix products, as torch's FlopCounter does.

    What is left out (norms, activations, resizing) moves memory rather than multiplies.

    Args:
        path: an ONNX file of static shapes; its weights are not read.

    Raises:
        ModuleNotFoundError: `onnx` is not installed.
        ValueError: a shape is missing or not static.
    """
    import onnx

    # Graphs are stored without the shapes that every reader infers.
    model = onnx.load(str(path), load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = _shapes(graph)
    counted: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in _COUNTERS:
            try:
                inputs = [shapes[name] for name in node.input[:2]]
                output = shapes[node.output[0]]
            except KeyError as error:
                raise ValueError(
                    f"{path}: {node.op_type} {node.name}: no shape for {error.args[0]!r}"
                ) from error
            if not all(size > 0 for shape in (*inputs, output) for size in shape):
                raise ValueError(f"{path}: {node.op_type} {node.name}: its shapes are not static")
            attributes = {attribute.name: attribute for attribute in node.attribute}
            macs = _COUNTERS[node.op_type](inputs, output, attributes)
            counted[node.op_type] = counted.get(node.op_type, 0) + macs
    return Arithmetic(sum(counted.values()), counted)


def _shapes(graph: Any) -> dict[str, Shape]:
    values = [*graph.input, *graph.value_info, *graph.output]
    found = {
        value.name: tuple(int(size.dim_value) for size in value.type.tensor_type.shape.dim)
        for value in values
    }
    found.update({tensor.name: tuple(map(int, tensor.dims)) for tensor in graph.initializer})
    return found


def _convolution(inputs: Sequence[Shape], output: Shape, _attributes: Mapping[str, Any]) -> int:
    # The weight is (out, in / groups, ...): each output value sums over all but its first axis.
    return math.prod(output) * math.prod(inputs[1][1:])


def _transposed(inputs: Sequence[Shape], _output: Shape, _attributes: Mapping[str, Any]) -> int:
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _product(inputs: Sequence[Shape], output: Shape, _attributes: Mapping[str, Any]) -> int:
    return math.prod(output) * inputs[0][-1]


def _gemm(inputs: Sequence[Shape], output: Shape, attributes: Mapping[str, Any]) -> int:
    turned = "transA" in attributes and attributes["transA"].i
    return math.prod(output) * inputs[0][0 if turned else 1]


_COUNTERS = {"Conv": _convolution, "ConvTranspose": _transposed, "MatMul": _product, "Gemm": _gemm}


def gemm_rate(sizes: Sequence[int] = GEMM_SIZES, repeats: int = 6) -> float:
    """This machine's float32 matrix rate through numpy's BLAS, all its threads: best of several sizes.

    Returns:
        1e9 floating-point operations a second.
    """
    best = 0.0
    for size in sizes:
        left, right = np.random.default_rng(0).random((2, size, size), dtype=np.float32)
        out = np.empty((size, size), np.float32)
        for _ in range(repeats):
            began = time.perf_counter()
            np.matmul(left, right, out=out)
            best = max(best, 2e-9 * size**3 / (time.perf_counter() - began))
    return best
