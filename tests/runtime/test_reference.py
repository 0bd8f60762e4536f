from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thermal_enhance.runtime import reference
from thermal_enhance.runtime.backend import SelfCheckError, TensorSpec
from thermal_enhance.runtime.manifest import GraphEntry

LARGE = TensorSpec("thermal", (1, 3, 128, 128), "float32")
SCALAR = TensorSpec("step", (), "int64")
OUT = TensorSpec("enhanced", (1, 1, 128, 128), "float32")
ENTRY = GraphEntry("two_view", (128, 128), "fp32", "two.onnx", "0" * 64, (LARGE, SCALAR), (OUT,))


class Doubler:
    """A backend that is exact, or off by what it is told."""

    name, device, precision, choice_reason = "numpy", "cpu", "fp32", ""
    inputs, outputs = {"thermal": LARGE, "step": SCALAR}, {"enhanced": OUT}

    def __init__(self, error: float = 0.0) -> None:
        self.error = error

    def run(self, feeds: Any) -> dict[str, Any]:
        return {"enhanced": feeds["thermal"][:, :1] * feeds["step"].astype(np.float32) + self.error}

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def file(tmp_path: Path) -> Path:
    picture = np.random.default_rng(0).random(LARGE.shape, np.float32)
    stored = {"thermal": reference.shorten(picture), "step": reference.shorten(np.array(2))}
    feeds = {spec.name: reference.lengthen(stored[spec.name], spec) for spec in ENTRY.inputs}
    path = tmp_path / reference.FILE_NAME
    reference.write(path, {ENTRY.key: (stored, Doubler().run(feeds))})
    return path


def test_inputs_keep_their_shape_and_values() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    spec = TensorSpec("a", whole.shape, "float32")
    assert np.array_equal(reference.lengthen(reference.shorten(whole), spec), whole)
    assert reference.lengthen(reference.shorten(np.array(2)), SCALAR) == np.array(2)
    assert (
        reference.lengthen(reference.shorten(np.zeros(LARGE.shape, np.float32)), LARGE).shape == LARGE.shape
    )


def test_samples_meet_every_column() -> None:
    columns = np.broadcast_to(np.arange(512), (512, 512))
    assert len(set(reference.sample(columns).tolist())) == 512


def test_is_small(file: Path) -> None:
    assert file.stat().st_size < 32768


def test_passes_within_tolerance(file: Path) -> None:
    assert reference.check(file, ENTRY, Doubler()) == 0.0
    assert reference.check(file, ENTRY, Doubler(5e-4)) == pytest.approx(2.5e-4, rel=0.01)


@pytest.mark.parametrize(
    ("error", "words"),
    [(0.01, r"two\.onnx on numpy \(cpu\) is off its reference by 0\.005"), (np.nan, "finite")],
)
def test_fails_beyond(file: Path, error: float, words: str) -> None:
    with pytest.raises(SelfCheckError, match=words):
        reference.check(file, ENTRY, Doubler(error))


def test_another_models_reference(file: Path) -> None:
    other = GraphEntry("one_view", (8, 8), "fp32", "one.onnx", "0" * 64, (LARGE,), (OUT,))
    with pytest.raises(SelfCheckError, match=r"cannot check one\.onnx against it"):
        reference.check(file, other, Doubler())
