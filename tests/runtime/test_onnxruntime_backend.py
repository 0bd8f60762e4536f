from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thermal_enhance.runtime import onnxruntime_backend
from thermal_enhance.runtime.backend import Backend, BackendError
from thermal_enhance.runtime.onnxruntime_backend import OnnxRuntimeBackend, usable_cpus


@pytest.fixture(scope="module")
def path(toy: Any) -> Path:
    return toy.folder / "two_view_16x16_fp32.onnx"


@pytest.fixture(scope="module")
def backend(path: Path) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(path, threads=1)


def feeds(seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {name: generator.random((1, 3, 16, 16), np.float32) for name in ("thermal", "rgb")}


def test_is_a_backend(backend: OnnxRuntimeBackend) -> None:
    assert isinstance(backend, Backend)
    assert (backend.name, backend.device, backend.precision) == ("onnxruntime", "cpu", "fp32")
    assert [str(spec) for spec in backend.inputs.values()] == [
        "thermal: float32 [1, 3, 16, 16]",
        "rgb: float32 [1, 3, 16, 16]",
    ]
    assert backend.outputs["enhanced"].shape == (1, 1, 16, 16)


def test_results_are_the_callers_own(backend: OnnxRuntimeBackend) -> None:
    first = backend.run(feeds())["enhanced"]
    kept = first.copy()
    backend.run(feeds(1))
    assert np.array_equal(first, kept)
    assert np.array_equal(backend.run(feeds())["enhanced"], kept)


def test_strided_input_is_taken(backend: OnnxRuntimeBackend) -> None:
    plain = feeds()
    strided = {**plain, "thermal": np.repeat(plain["thermal"], 2, axis=3)[..., ::2]}
    assert not strided["thermal"].flags.c_contiguous
    assert np.array_equal(backend.run(strided)["enhanced"], backend.run(plain)["enhanced"])


def test_wrong_feeds_are_refused(backend: OnnxRuntimeBackend) -> None:
    with pytest.raises(ValueError, match="'rgb' is missing"):
        backend.run({"thermal": feeds()["thermal"]})
    with pytest.raises(ValueError, match=r"\[1, 3, 16, 17\].*\[1, 3, 16, 16\]"):
        backend.run({**feeds(), "rgb": np.zeros((1, 3, 16, 17), np.float32)})


@pytest.mark.parametrize("whole_folder", [True, False])
def test_symlinks_are_followed(path: Path, tmp_path: Path, whole_folder: bool) -> None:
    """A symlink-installed share: the external data lies beside the real file only."""
    if whole_folder:
        (tmp_path / "model").symlink_to(path.parent)
    else:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / path.name).symlink_to(path)
    linked = OnnxRuntimeBackend(tmp_path / "model" / path.name, threads=1)
    assert np.isfinite(linked.run(feeds())["enhanced"]).all()


def test_leaves_the_process_its_arithmetic(path: Path) -> None:
    """ONNX Runtime's denormal option would flush them for everything else on the calling thread."""
    backend = OnnxRuntimeBackend(path)
    backend.run(feeds())
    assert np.array([1e-310])[0] * 0.5 > 0.0
    backend.close()


def test_warm_up_and_close(path: Path) -> None:
    backend = OnnxRuntimeBackend(path, threads=1)
    backend.warm_up()
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run(feeds())


def test_memory_stays_where_warm_up_left_it(path: Path) -> None:
    def resident() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0])

    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    backend = OnnxRuntimeBackend(path, threads=2)
    backend.warm_up()
    before = resident()
    for seed in range(300):
        backend.run(feeds(seed))
    assert resident() - before < 4096  # KiB; a copy of each frame would be 900


def test_spinning_is_off_unless_asked_for(path: Path) -> None:
    for spin in (False, True):
        backend = OnnxRuntimeBackend(path, threads=2, spin=spin)
        options = backend._session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spin))
        assert options.intra_op_num_threads == 2


def test_all_threads_are_a_number_never_zero(path: Path) -> None:
    options = OnnxRuntimeBackend(path)._session.get_session_options()
    assert options.intra_op_num_threads == usable_cpus() >= 1
    with pytest.raises(ValueError, match="threads"):
        OnnxRuntimeBackend(path, threads=-1)


def test_a_missing_or_broken_graph_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        OnnxRuntimeBackend(tmp_path / "nothing.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(BackendError, match="broken"):
        OnnxRuntimeBackend(tmp_path / "broken.onnx")
    shutil.copy(path, tmp_path / "alone.onnx")
    with pytest.raises(BackendError, match="alone"):
        OnnxRuntimeBackend(tmp_path / "alone.onnx")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", ""])
def test_unknown_device(path: Path, device: str) -> None:
    with pytest.raises(BackendError, match="device must be 'cpu', 'cuda' or 'cuda:N'"):
        OnnxRuntimeBackend(path, device=device)


def test_cuda_without_cuda_tells_the_way(path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime_backend.import_onnxruntime().get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BackendError, match="pip install onnxruntime-gpu"):
        OnnxRuntimeBackend(path, device="cuda")


def test_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        OnnxRuntimeBackend(path)
