"""Compile an exported graph with TensorRT for RTX: ahead of time, no GPU needed, and none used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thermal_enhance.runtime.backend import BackendError

COMPUTE_CAPABILITIES = ("SM86", "SM89", "SM120")
"""Ampere, Ada and Blackwell cards."""


@dataclass(frozen=True)
class CompiledGraph:
    """An engine: compiled here, not executed here.

    Attributes:
        engine: the serialized engine.
        compute_capabilities: the GPUs it is for.
        version: version of the compiler; an engine runs on this very one only.
        layers: number of layers of the network as parsed.
    """

    engine: bytes
    compute_capabilities: tuple[str, ...]
    version: str
    layers: int

    @property
    def report(self) -> str:
        """One line for people."""
        return (
            f"compiled, not executed here: {len(self.engine) / 2**20:.2f} MiB for "
            f"{', '.join(self.compute_capabilities)}, {self.layers} layers, TensorRT-RTX {self.version}"
        )


def compile_graph(
    path: str | Path, *, compute_capabilities: Sequence[str] = COMPUTE_CAPABILITIES
) -> CompiledGraph:
    """Compile a graph, its weights taken from beside the real file.

    Precision is what the graph's own types say.

    Args:
        path: the .onnx file.
        compute_capabilities: names of the GPUs' generations ("SM86", ...).

    Raises:
        FileNotFoundError: there is no such file.
        BackendError: tensorrt-rtx is not installed, does not know the GPU, or cannot parse or compile the
            graph; the message has the parser's words.
    """
    path = Path(path).resolve(strict=True)
    try:
        import tensorrt_rtx as trt
    except (ImportError, OSError) as error:
        raise BackendError(
            f"compiling for RTX cards needs TensorRT-RTX, which cannot be imported ({error}): "
            "`pip install 'thermal_enhance[tensorrt]'`"
        ) from error
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = [str(parser.get_error(index)).strip() for index in range(parser.num_errors)]
        raise BackendError(f"{path}: TensorRT-RTX cannot parse it: {' | '.join(errors)}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(compute_capabilities)
    for index, name in enumerate(compute_capabilities):
        known = getattr(trt.ComputeCapability, name, None)
        if known is None:
            raise BackendError(f"compute_capabilities: TensorRT-RTX {trt.__version__} does not know {name!r}")
        config.set_compute_capability(known, index)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        reason = " | ".join(logger.errors) or "it gives no reason"
        raise BackendError(f"{path}: TensorRT-RTX cannot compile it: {reason}")
    return CompiledGraph(bytes(engine), tuple(compute_capabilities), trt.__version__, network.num_layers)


def _logger(trt: Any) -> Any:
    """Keeps the library's errors for the exception, and its chatter from the terminal."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message.strip())

    return Logger()
