"""What was really there: noise-free temperatures, label masks and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.simulation.render import Sighting


@dataclass(frozen=True)
class Box:
    """An actor in the truth picture.

    Attributes:
        label: "person" or "car".
        x: left edge, pixels of the truth picture (0 is its left edge).
        y: top edge.
        w: width.
        h: height; the box bounds the whole outline, clipped to the picture.
        visible: share of the actor that is neither hidden nor outside, 0..1.
        track_id: stays with the actor.
    """

    label: str
    x: float
    y: float
    w: float
    h: float
    visible: float
    track_id: int


@dataclass(frozen=True)
class RigTruth:
    """What was really there, aligned with the thermal camera.

    Attributes:
        temperature_k: (H * scale, W * scale) float32 kelvin: no blur, no noise, no pattern, no offset.
        mask: (H * scale, W * scale) uint8 labels, see `LABELS` (0 background, 1 person, 2 car).
        instances: (H * scale, W * scale) uint8 track ids, 0 for none.
        boxes: actors seen, nearest last.
        scale: resolution over that of the thermal camera.
        t_s: the moment, seconds.
    """

    temperature_k: NDArray[np.float32]
    mask: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    scale: int
    t_s: float


def visible_boxes(
    sightings: list[Sighting],
    instances: NDArray[np.uint8],
    shrink: int,
    size: tuple[int, int],
    min_visible: float,
) -> tuple[Box, ...]:
    """Boxes of the actors in a picture.

    Args:
        sightings: actors drawn, far first.
        instances: (H * shrink, W * shrink) uint8 track ids of what is visible.
        shrink: resolution of the sightings over that of the boxes.
        size: (W, H) the boxes are clipped to.
        min_visible: actors with a smaller visible share are left out.
    """
    counts = np.bincount(instances.ravel(), minlength=256)
    boxes = []
    for sighting in sightings:
        x0, y0, x1, y1 = (edge / shrink for edge in sighting.extent)
        whole = (x1 - x0) * (y1 - y0)
        x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1]))
        if x1 <= x0 or y1 <= y0 or not sighting.pixels:
            continue
        inside = (x1 - x0) * (y1 - y0) / whole
        visible = inside * float(counts[sighting.track_id]) / sighting.pixels
        if visible >= min_visible:
            boxes.append(Box(sighting.label, x0, y0, x1 - x0, y1 - y0, visible, sighting.track_id))
    return tuple(boxes)
