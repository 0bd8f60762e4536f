from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from thermal_enhance.imaging.colormap import colorize, palette, palette_names


@pytest.mark.parametrize("name", palette_names())
def test_every_palette_colours_by_its_table(name: str) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = colorize(gray, name)
    assert picture.shape == (16, 16, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture.reshape(256, 3), palette(name))
    assert len(np.unique(palette(name), axis=0)) > 60


def test_channels_are_rgb() -> None:
    blue_end, red_end = palette("jet")[20].astype(int), palette("jet")[-20].astype(int)
    assert blue_end[2] > blue_end[0]
    assert red_end[0] > red_end[2]


def test_white_hot_and_black_hot() -> None:
    gray = np.array([[0, 100, 255]], np.uint8)
    np.testing.assert_array_equal(colorize(gray, "white_hot")[..., 1], gray)
    np.testing.assert_array_equal(colorize(gray, "black_hot")[..., 2], 255 - gray)


@pytest.mark.parametrize("name", ["ironbow", "inferno", "magma", "hot", "white_hot"])
def test_hotter_is_brighter(name: str) -> None:
    luma = palette(name) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma) > -3).all()
    assert luma[-1] - luma[0] > 150


def test_tables_are_cached_and_cannot_be_spoilt() -> None:
    assert palette("ironbow") is palette("ironbow")
    with pytest.raises(ValueError):
        palette("ironbow")[0, 0] = 1


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(ValueError, match=r"no palette named 'lava'.*white_hot.*inferno"):
        colorize(np.zeros((2, 2), np.uint8), "lava")


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2), np.uint16), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_other_pictures_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="uint8"):
        colorize(bad)
