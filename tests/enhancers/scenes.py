"""Pictures to enhance: a thermal scene, its RGB, and requests made of them."""

import math

import cv2
import numpy as np

from thermal_enhance.enhancers.base import EnhanceRequest
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame, Units


def pair(seed=0, height=480, width=640):
    """(high-resolution thermal 0..255, RGB) of one scene of shapes."""
    rng = np.random.default_rng(seed)
    truth = np.full((height, width), 100, np.float32)
    color = np.full((height, width, 3), 140, np.uint8)
    for _ in range(110):
        x, y = int(rng.integers(0, width - 10)), int(rng.integers(0, height - 10))
        w, h = int(rng.integers(12, 90)), int(rng.integers(12, 90))
        cv2.rectangle(truth, (x, y), (x + w, y + h), float(rng.uniform(30, 220)), -1)
        cv2.rectangle(color, (x, y), (x + w, y + h), [int(v) for v in rng.integers(20, 230, 3)], -1)
    return truth, ColorFrame(color)


def request(truth, scale, color=None, *, dtype=np.float32, gain=1.0, offset=0.0, **more):
    low = area_down(truth, scale) * gain + offset
    low = np.rint(low) if dtype != np.float32 else low
    frame = ThermalFrame(low.astype(dtype), Units.COUNTS, 123, "cam")
    return EnhanceRequest(frame, color, scale, 0.0 if color else math.nan, **more)


def error(result, truth):
    return float(np.sqrt(np.mean((np.asarray(result.thermal.data, np.float64) - truth) ** 2)))
