from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from thermal_enhance.runtime.backend import TensorSpec, check_feeds, zeros

INPUTS = {
    "thermal": TensorSpec("thermal", (1, 3, 4, 6), "float32"),
    "step": TensorSpec("step", (), "int64"),
}


def test_zeros_fit() -> None:
    feeds = zeros(INPUTS)
    check_feeds(feeds, INPUTS)
    assert feeds["step"].shape == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"thermal": None}, ["'thermal' is missing", "thermal: float32 [1, 3, 4, 6]", "step: int64 []"]),
        ({"thermal": np.zeros((1, 3, 6, 4), "f")}, ["'thermal'", "[1, 3, 6, 4]", "[1, 3, 4, 6]"]),
        ({"thermal": np.zeros((1, 3, 4, 6))}, ["'thermal'", "float64", "float32"]),
        ({"step": 3}, ["'step'", "numpy array", "int"]),
        ({"rgb": np.zeros(3)}, ["'rgb' is unknown", "thermal"]),
    ],
)
def test_wrong_feed_is_named_with_what_is_expected(change: dict[str, Any], words: list[str]) -> None:
    feeds: dict[str, Any] = {**zeros(INPUTS), **change}
    feeds = {name: value for name, value in feeds.items() if value is not None}
    with pytest.raises(ValueError, match="input") as raised:
        check_feeds(feeds, INPUTS)
    assert all(word in str(raised.value) for word in words)
