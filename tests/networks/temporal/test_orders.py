from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from thermal_enhance.networks.temporal.orders import (
    HilbertOrder,
    Order,
    RasterOrder,
    TimeOrder,
    hilbert_curve,
    mirrored,
)

ORDERS = {
    "raster": RasterOrder(),
    "carry": RasterOrder(carry=True),
    "time": TimeOrder(),
    "hilbert": HilbertOrder(4),
    "shifted": HilbertOrder(4, shift=True),
}


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_hilbert_curve_visits_all_in_unit_steps(side: int) -> None:
    curve = hilbert_curve(side)
    assert sorted(curve) == list(range(side * side))
    points = [divmod(place, side) for place in curve]
    steps = {abs(y2 - y1) + abs(x2 - x1) for (y1, x1), (y2, x2) in pairwise(points)}
    assert steps <= {1}


def numbered(batch: int, times: int, height: int, width: int) -> Any:
    count = batch * times * height * width
    return torch.arange(count, dtype=torch.float32).reshape(batch, times, height, width, 1)


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (4, 4), (3, 2), (1, 5)])
@pytest.mark.parametrize("name", ORDERS)
def test_there_and_back(name: str, size: tuple[int, int]) -> None:
    tokens = numbered(2, 3, *size).expand(-1, -1, -1, -1, 2)
    order = ORDERS[name]
    sequences = order.arrange(tokens)
    assert set(sequences.flatten().tolist()) == set(tokens.flatten().tolist()), "no token is left out"
    assert torch.equal(order.restore(sequences, (2, 3, *size)), tokens)


@pytest.mark.parametrize("name", ORDERS)
def test_frame_values_meet_the_tokens_of_their_frame(name: str) -> None:
    order: Order = ORDERS[name]
    frames = torch.arange(6, dtype=torch.float32).reshape(2, 3, 1)
    tokens = frames[:, :, None, None].expand(2, 3, 6, 10, 1)
    sequences = order.arrange(tokens)
    assert torch.equal(order.frames(frames, 6, 10).expand_as(sequences), sequences)


def test_what_each_order_walks_along() -> None:
    tokens = numbered(1, 2, 4, 4)
    assert RasterOrder().arrange(tokens)[..., 0].tolist() == [list(range(16)), list(range(16, 32))]
    assert RasterOrder(carry=True).arrange(tokens)[..., 0].tolist() == [list(range(32))]
    assert TimeOrder().arrange(tokens)[:3, :, 0].tolist() == [[0, 16], [1, 17], [2, 18]]
    assert HilbertOrder(2).arrange(tokens)[:2, :, 0].tolist() == [[0, 4, 5, 1], [2, 6, 7, 3]]
    shifted = HilbertOrder(2, shift=True).arrange(tokens)[..., 0].tolist()
    assert sorted(shifted[4]) == [5, 6, 9, 10], "a window over the border of four others"


def test_mirrored_as_often_as_it_takes() -> None:
    assert mirrored(4, 2, 8) == [2, 1, 0, 1, 2, 3, 2, 1]
    assert mirrored(2, 2, 8) == [0, 1, 0, 1, 0, 1, 0, 1]
    assert mirrored(1, 1, 4) == [0, 0, 0, 0]
