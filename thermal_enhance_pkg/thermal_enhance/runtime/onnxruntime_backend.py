"""ONNX Runtime behind the backend seam, on the CPU or on CUDA."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thermal_enhance.runtime.backend import Array, BackendError, TensorSpec, check_feeds, zeros

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_ERRORS_ONLY = 3
"""ONNX Runtime's log level: its warnings are about its own choices, not the user's."""


def import_onnxruntime() -> Any:
    """The module.

    Raises:
        BackendError: it is not installed or does not load here.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            f"models need ONNX Runtime, which cannot be imported ({error}): `pip install onnxruntime`, or "
            "`onnxruntime-gpu` for CUDA"
        ) from error
    return onnxruntime


def usable_cpus() -> int:
    """CPUs this process may use: those it is allowed on, cut to a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no such control group, or no quota ("max")
    return allowed


class OnnxRuntimeBackend:
    """One ONNX graph in an ONNX Runtime session.

    Args:
        path: the .onnx file. Symlinks are followed first: its external data must lie beside the real file.
        device: "cpu", "cuda" or "cuda:N".
        threads: CPU threads inside an operator; 0 for all this process may use.
        spin: let waiting threads spin between operators and for a while after a frame, rather than sleep.
            On a machine with other work it makes no frame faster and burns CPU time between frames.
        precision: the graph's precision as its model says; for the record only.

    Raises:
        FileNotFoundError: there is no such file.
        BackendError: ONNX Runtime is missing, lacks the device, or refuses the graph.
    """

    name = "onnxruntime"

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "cpu",
        threads: int = 0,
        spin: bool = False,
        precision: str = "fp32",
    ) -> None:
        if threads < 0:
            raise ValueError(f"threads must be 0 (all) or more, not {threads}")
        self.path = Path(path).resolve(strict=True)
        self.precision = precision
        self.choice_reason = ""
        self._ort = import_onnxruntime()
        self.device, providers = self._providers(device)
        options = self._ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Never 0: ONNX Runtime would then pin its threads to cores of its own choice.
        options.intra_op_num_threads = threads or usable_cpus()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        try:
            self._session: Any = self._ort.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # its own exception classes share no base but Exception
            raise BackendError(f"{self.path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
        active = self._session.get_providers()
        if active[0] != _provider_name(providers[0]):
            raise BackendError(
                f"device {device!r}: ONNX Runtime could not start {_provider_name(providers[0])} (are the "
                "CUDA driver and libraries it needs installed?); use device 'cpu' or 'auto'"
            )
        self.inputs = {value.name: self._spec(value) for value in self._session.get_inputs()}
        self.outputs = {value.name: self._spec(value) for value in self._session.get_outputs()}
        self._names = list(self.outputs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        if self._session is None:
            raise BackendError(f"{self.path.name} is closed")
        check_feeds(feeds, self.inputs)
        contiguous = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        # No IO binding on the CPU: inputs are read in place and outputs handed over without a copy anyway.
        try:
            values = self._session.run(self._names, contiguous)
        except Exception as error:
            raise BackendError(f"{self.path.name}: ONNX Runtime failed: {_first_line(error)}") from error
        return dict(zip(self._names, values))

    def warm_up(self) -> None:
        """Run on zeros: the first run learns how much memory it takes, the second takes that in one block."""
        for _ in range(2):
            self.run(zeros(self.inputs))

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _providers(self, device: str) -> tuple[str, list[Any]]:
        """(device in full, providers for the session)."""
        kind, _, index = device.partition(":")
        if kind == "cpu" and not index:
            return "cpu", ["CPUExecutionProvider"]
        if kind != "cuda" or (index and not index.isdigit()):
            raise BackendError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}")
        if "CUDAExecutionProvider" not in self._ort.get_available_providers():
            raise BackendError(
                f"device {device!r}: this ONNX Runtime ({self._ort.__version__}) has no CUDA: "
                "`pip uninstall onnxruntime && pip install onnxruntime-gpu`, or use device 'cpu'"
            )
        options = {
            "device_id": index or "0",
            "arena_extend_strategy": "kSameAsRequested",
            # Precision is the graph's: fp32 means fp32, and the self-check's tolerance with it.
            "use_tf32": "0",
        }
        return f"cuda:{index or 0}", [("CUDAExecutionProvider", options), "CPUExecutionProvider"]

    def _spec(self, value: Any) -> TensorSpec:
        dtype = DTYPES.get(value.type)
        if dtype is None:
            raise BackendError(f"{self.path.name}: {value.name} is {value.type}, which we cannot feed")
        if not all(isinstance(size, int) for size in value.shape):
            raise BackendError(
                f"{self.path.name}: {value.name} has the shape {value.shape}: export the graph with static "
                "shapes, one graph a profile"
            )
        return TensorSpec(value.name, tuple(value.shape), dtype)


def _provider_name(provider: Any) -> str:
    return str(provider if isinstance(provider, str) else provider[0])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
