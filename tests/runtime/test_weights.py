from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thermal_enhance.runtime import weights


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    tensors = {
        "odd": np.arange(3, dtype=np.float16),
        "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "count": np.array(7, np.int64),
        "flag": np.array([True, False, True]),
    }
    weights.write(path, tensors, {"size": "edge"})
    return path


def test_slots_point_at_the_bytes_and_are_aligned(file: Path) -> None:
    slots, metadata = weights.read_header(file)
    raw = file.read_bytes()
    assert metadata == {"size": "edge"}
    slot = slots["b.weight"]
    assert (slot.dtype, slot.shape, slot.length) == ("F32", (2, 3), 24)
    assert np.frombuffer(raw[slot.offset : slot.offset + slot.length], "<f4").tolist() == [0, 1, 2, 3, 4, 5]
    sizes = {"I64": 8, "F32": 4, "F16": 2, "BOOL": 1}
    assert all(slot.offset % sizes[slot.dtype] == 0 for slot in slots.values())


def test_any_safetensors_reader_reads_it(file: Path) -> None:
    from safetensors.numpy import load_file

    assert load_file(file)["count"] == 7


def test_same_tensors_same_bytes(tmp_path: Path) -> None:
    """Whatever order they come in."""
    a, b = np.zeros(3, np.float32), np.ones(2, np.float16)
    words = {str(i): "x" for i in range(20)}
    weights.write(tmp_path / "1", {"a": a, "b": b}, words)
    weights.write(tmp_path / "2", {"b": b, "a": a}, dict(reversed(words.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_unknown_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="z is complex64; known: float64"):
        weights.write(tmp_path / "w", {"z": np.zeros(2, np.complex64)})


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]"])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(weights.WeightsError, match="not a safetensors file"):
        weights.read_header(path)


def test_cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(weights.WeightsError, match="cut short"):
        weights.read_header(file)


def test_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert weights.sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")
