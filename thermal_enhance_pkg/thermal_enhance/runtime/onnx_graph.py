"""A torch module as a graph-only ONNX file whose weights lie in the model's one safetensors file.

Each weight appears in the graph as an initializer of the name it has in the state dict, stored as fp16 and
followed by a Cast, so that everything computes in fp32; a runtime folds the Casts while it loads.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping, Sequence, Set
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from thermal_enhance.runtime.weights import Slot

OPSET = 18
IR_VERSION = 10
"""What the oldest ONNX Runtime we pin reads."""
INLINE_LIMIT = 1 << 20
"""Most bytes of constants inside one graph file."""
SMALL = 4096
"""Constants of up to this many bytes may be folded into others and kept in the graph."""


class ExportError(RuntimeError):
    """A module cannot be exported; the message says which and why."""


def trace(module: Any, inputs: Mapping[str, Any], output_names: Sequence[str], name: str) -> Any:
    """An onnx_ir model of a torch module with its weights still in it, not optimised yet.

    Args:
        module: torch module in evaluation mode.
        inputs: example tensors by input name, in the order of the module's `forward`.
        output_names: names for its outputs.
        name: how to call it in an error.

    Raises:
        ExportError: torch cannot export it.
    """
    import torch

    chatter = StringIO()
    # Its word on every library that is not installed.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(chatter), redirect_stderr(chatter):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=list(output_names),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                # Optimised later, when the weights are out of reach of constant folding.
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"{name}: torch cannot export it: {_root_cause(error)}") from error
    finally:
        logger.setLevel(level)
    assert program is not None
    got = [value.name for value in program.model.graph.inputs]
    if got != list(inputs):
        raise ExportError(f"{name}: the graph takes {got} and the example inputs are {list(inputs)}")
    return program.model


def _root_cause(error: BaseException) -> str:
    """What went wrong at the bottom of torch's chain of exceptions, and at which node of the graph."""
    node, cause = "", error
    while cause.__cause__ is not None:
        cause = cause.__cause__
        found = re.search(r"translating node (%\S+)", str(cause))
        node = f" (at node {found[1]})" if found else node
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0] + node


def endings(name: str) -> list[str]:
    """`a.b.c`, `b.c`, `c`: what a name is called without the prefixes of the modules around it."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def match_names(initializers: Mapping[str, Any], slots: Mapping[str, Slot], name: str) -> dict[str, str]:
    """State dict name of each initializer that comes from the state dict.

    A wrapper module prefixes its network's names (`network.conv.weight`); the state dict's own name is found
    by its ending.

    Raises:
        ExportError: a parameter is not in the state dict.
    """
    found = {}
    for initializer, value in initializers.items():
        shape = tuple(int(size) for size in value.shape)
        keys = (key for key in endings(initializer) if key in slots and slots[key].shape == shape)
        key = next(keys, None)
        if key is not None:
            found[initializer] = key
        elif value.const_value.nbytes > SMALL and value.dtype.is_floating_point():
            raise ExportError(
                f"{name}: {initializer} {list(shape)} is not in the state dict: pass the state dict of the "
                "network that the graph is made of (or register the constant as a persistent buffer)"
            )
    return found


def link_weights(
    model: Any, slots: Mapping[str, Slot], names: Mapping[str, str], tables: Set[str], weights_file: str
) -> Any:
    """Optimise a graph and point its weights into the weights file.

    Args:
        model: result of `trace`; changed in place.
        slots: what lies where in the weights file.
        names: result of `match_names`.
        tables: entries of the state dict that are buffers; small ones are folded and kept in the graph.
        weights_file: plain name of the weights file, beside which the graph will lie.

    Returns:
        An onnx ModelProto.

    Raises:
        ExportError: constants of more than INLINE_LIMIT would be inside the graph.
    """
    import onnx_ir as ir
    from onnxscript import optimizer

    graph = model.graph
    linked = {
        initializer: key
        for initializer, key in names.items()
        if key not in tables or slots[key].length > SMALL
    }
    held = {}
    for initializer in linked:
        value = graph.initializers.pop(initializer)
        value.const_value = None
        # As an input the optimiser cannot fold it (a transposed weight would be a second copy of it).
        graph.inputs.append(value)
        held[initializer] = value
    optimizer.optimize_ir(model, onnx_shape_inference=True)
    kept = [value for value in graph.inputs if value not in held.values()]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for initializer, value in held.items():
        if not value.uses():
            continue
        _link(graph, value, linked[initializer], slots[linked[initializer]], weights_file)
    ir.passes.common.ClearMetadataAndDocStringPass()(model)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "thermal_enhance", None
    _check_inline(graph, set(linked.values()))
    proto = ir.to_proto(model)
    # A third of the file, and every reader infers it anyway.
    del proto.graph.value_info[:]
    return proto


def _link(graph: Any, value: Any, key: str, slot: Slot, weights_file: str) -> None:
    """Feed the uses of `value` from the weights file."""
    import onnx_ir as ir

    dtype = {"F16": ir.DataType.FLOAT16, "F32": ir.DataType.FLOAT}.get(slot.dtype, value.dtype)
    tensor = ir.ExternalTensor(
        weights_file, slot.offset, slot.length, dtype, shape=ir.Shape(slot.shape), name=key
    )
    if dtype == value.dtype:
        value.name, value.const_value = key, tensor
        graph.initializers[key] = value
        return
    stored = ir.Value(name=key, shape=ir.Shape(slot.shape), type=ir.TensorType(dtype), const_value=tensor)
    graph.initializers[key] = stored
    wanted = value.dtype
    cast = ir.node("Cast", [stored], {"to": int(wanted)})
    cast.outputs[0].name = f"{key}/{wanted.name.lower()}"
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(wanted), ir.Shape(slot.shape)
    ir.convenience.replace_all_uses_with(value, cast.outputs[0])
    graph.insert_before(graph[0], cast)


def _check_inline(graph: Any, linked: set[str]) -> None:
    sizes = {
        name: value.const_value.nbytes for name, value in graph.initializers.items() if name not in linked
    }
    if sum(sizes.values()) > INLINE_LIMIT:
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
        raise ExportError(
            f"{sum(sizes.values()) / 2**20:.1f} MiB of constants would lie inside the graph (largest: "
            + ", ".join(f"{name} {sizes[name] / 2**20:.2f} MiB" for name in largest)
            + "): register them as persistent buffers, so that they are stored once with the weights"
        )


def save(proto: Any, path: Path) -> None:
    """Write a graph and have ONNX check it together with the weights beside it.

    Raises:
        ExportError: the checker refuses it.
    """
    import onnx

    path.write_bytes(proto.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(str(path.resolve()), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name}: the ONNX checker refuses it: {error}") from error
