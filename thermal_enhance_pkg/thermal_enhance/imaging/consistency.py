"""Radiometric consistency: enhancement may add detail, never heat.

A super-resolved output is compared with the measurement it came from: `back_project` corrects block means
down to the sensor's noise level, not to zero, because the measurement carries noise that must not come back.
Restoration at the same size and interpolated frames: see `restoration_consistency`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

SAMPLING_MODELS = ("area", "off")
_ROUNDING = 2.0**-20
"""What float32 sums over a block may lose, relative to the largest value."""


@dataclass(frozen=True)
class ConsistencyConfig:
    """How far an output may stray from its input.

    Attributes:
        netd: noise of the sensor (one standard deviation), in the units of the frame.
        k: how many of them a block mean may be off.
        iterations: back-projection steps on the input grid; they decide how smooth the correction is, the
            bound holds with any number.
        sampling: "area" where a pixel of the input is the mean over its area; "off" for aliased input,
            which is measured but not corrected.
    """

    netd: float = 1.0
    k: float = 1.0
    iterations: int = 4
    sampling: str = "area"

    def __post_init__(self) -> None:
        for name in ("netd", "k"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"consistency.{name} must be a finite number of at least 0, not {value}")
        if self.iterations < 0:
            raise ValueError(f"consistency.iterations must be at least 0, not {self.iterations}")
        _check_sampling(self.sampling)

    @property
    def limit(self) -> float:
        """Largest deviation allowed of a block mean, in the units of the frame."""
        return self.k * self.netd

    def apply(
        self, output: NDArray[Any], observed: NDArray[Any], scale: int, keep_map: bool = False
    ) -> tuple[NDArray[np.float32], ConsistencyReport]:
        """`back_project` with these settings."""
        return back_project(
            output, observed, scale, self.limit, self.iterations, sampling=self.sampling, keep_map=keep_map
        )


@dataclass(frozen=True)
class ConsistencyReport:
    """What `back_project` found and left, in the units of the frame.

    Attributes:
        residual_max: max |area_down(output) - observed| afterwards; 0 if no observed pixel is finite.
        residual_rms: root mean square of the same.
        residual_max_before: the maximum before the correction: the size of the hallucination.
        residual_rms_before: root mean square of the same.
        fraction_clamped: share of observed pixels that were off by more than the limit, 0 to 1.
        limit: the bound that was asked for.
        hallucination: (h, w) float32 |area_down(output) - observed| before the correction, NaN where
            observed is not finite; None unless asked for.
    """

    residual_max: float
    residual_rms: float
    residual_max_before: float
    residual_rms_before: float
    fraction_clamped: float
    limit: float
    hallucination: NDArray[np.float32] | None = None


def area_down(image: NDArray[Any], scale: int) -> NDArray[np.float32]:
    """Block means: what a sensor with `scale` times larger pixels would have measured.

    Args:
        image: (H, W) of any real dtype.
        scale: whole factor of at least 1 that divides H and W.

    Returns:
        (H / scale, W / scale) float32, same units; a copy for scale 1.

    Raises:
        ValueError: image is not (H, W), or scale does not divide it.
    """
    height, width = image_shape(image, "image")
    if scale < 1 or height % scale or width % scale:
        raise ValueError(f"scale {scale} does not divide an image of {width}x{height}")
    if scale == 1:
        return image.astype(np.float32)
    single = np.ascontiguousarray(image, dtype=np.float32)
    means = cv2.resize(single, (width // scale, height // scale), interpolation=cv2.INTER_AREA)
    return np.asarray(means, dtype=np.float32)


def back_project(
    output: NDArray[Any],
    observed: NDArray[Any],
    scale: int,
    limit: float,
    iterations: int = 4,
    *,
    sampling: str = "area",
    value_range: tuple[float, float] | None = None,
    keep_map: bool = False,
) -> tuple[NDArray[np.float32], ConsistencyReport]:
    """Correct an output until its block means agree with the observation (METHODS 4.1).

    Only what exceeds `limit` is pushed back, so the sensor's own noise is not restored. Because
    area-downsampling of the bicubic upsampling of a small image is a short separable filter on that image,
    the steps run on the input grid and the output is touched once. What the smooth correction leaves over
    is added per block, and a block that cannot keep its mean inside `value_range` gives up contrast.

    Args:
        output: (h * scale, w * scale) enhanced image, finite.
        observed: (h, w) measurement in the same units; non-finite pixels constrain nothing.
        scale: output size over input size, at least 1.
        limit: largest |block mean - observed| allowed, at least 0, in the units of the frame.
        iterations: steps on the input grid; more means smoother.
        sampling: "area", or "off" to measure only.
        value_range: (low, high) that corrected pixels stay in; by default that of an integer observed dtype,
            none for floats. It makes the bound survive rounding and saturation (`to_dtype`).
        keep_map: put the deviation before correction into the report.

    Returns:
        (h * scale, w * scale) float32, and the report. With "area", every finite observed pixel (inside
        value_range, below 1e36) is met within limit + 2**-20 max(limit, |observed|), the
        largest of the image: float32 rounding.

    Raises:
        ValueError: sizes do not fit, the output has non-finite pixels, or a parameter is out of range.
    """
    height, width = image_shape(observed, "observed")
    if scale < 1 or output.shape != (height * scale, width * scale):
        raise ValueError(f"output {output.shape} is not observed {observed.shape} times scale {scale}")
    if not limit >= 0:
        raise ValueError(f"limit must be at least 0, not {limit}; check consistency.netd and consistency.k")
    _check_sampling(sampling)
    corrected = output.astype(np.float32)
    means = area_down(corrected, scale)
    # A non-finite pixel makes its mean non-finite, so the large image is searched only when that happened.
    if not np.isfinite(means).all() and not np.isfinite(corrected).all():
        raise ValueError("the enhanced image has non-finite pixels")

    target = observed.astype(np.float32).astype(np.float64)
    valid = np.isfinite(target)
    if not valid.all():
        target = np.where(valid, target, 0.0)
    largest = float(np.abs(target).max())
    rounding = _ROUNDING * max(largest, limit) + 1e-37
    bound = limit + rounding

    def measured() -> NDArray[np.float64]:
        # Sums in float32 are true to `rounding` only while no pixel dwarfs the measurement.
        tame = max(float(corrected.max()), -float(corrected.min())) <= 4.0 * max(largest, limit)
        return np.where(
            valid, target - (area_down(corrected, scale) if tame else _mean64(corrected, scale)), 0.0
        )

    with np.errstate(over="ignore", invalid="ignore"):
        before = np.where(valid, target - means, 0.0)
        clamped = ~(np.abs(before) <= bound)
        residual = before
        if sampling == "area":
            if value_range is None and observed.dtype.kind in "iu":
                info = np.iinfo(observed.dtype)
                value_range = (float(info.min), float(info.max))
            # Aim inside the bound by the rounding to come, so that the bound itself is met.
            aim = max(limit - rounding, 0.0)
            if value_range is not None:
                np.clip(corrected, *value_range, out=corrected)
                residual = measured()
            _correct(corrected, residual, aim, scale, iterations)
            if value_range is not None:
                np.clip(corrected, *value_range, out=corrected)
            residual = measured()
            for refit in (_refit_blocks, _flatten_blocks):
                failed = ~(np.abs(residual) <= bound)
                if failed.any():
                    refit(corrected, failed, target, aim, scale=scale, value_range=value_range)
                    residual = measured()
        count = max(int(valid.sum()), 1)
        report = ConsistencyReport(
            residual_max=float(np.abs(residual).max(initial=0.0)),
            residual_rms=float(np.sqrt(np.square(residual).sum() / count)),
            residual_max_before=float(np.abs(before).max(initial=0.0)),
            residual_rms_before=float(np.sqrt(np.square(before).sum() / count)),
            fraction_clamped=float(clamped.sum() / count),
            limit=float(limit),
            hallucination=(np.where(valid, np.abs(before), np.nan).astype(np.float32) if keep_map else None),
        )
    return corrected, report


def to_dtype(image: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Round and saturate to a frame's dtype.

    Args:
        image: array of any shape, finite where dtype is an integer.
        dtype: uint8, uint16, float32 (or any other real dtype).

    Returns:
        Array of that dtype, halves rounded to even. Rounding moves a block mean by at most 0.5.

    Raises:
        ValueError: non-finite pixels cannot become integers.
    """
    target = np.dtype(dtype)
    if image.dtype == target:
        return image
    if target.kind not in "iu":
        return image.astype(target)
    info = np.iinfo(target)
    if image.dtype.kind in "iub":
        return np.clip(image.astype(np.int64), info.min, info.max).astype(target)
    if not np.isfinite(image).all():
        raise ValueError(f"non-finite pixels cannot be written as {target.name}")
    rounded = np.rint(image)
    return np.clip(rounded, info.min, info.max, out=rounded).astype(target)


def _check_sampling(sampling: str) -> None:
    if sampling not in SAMPLING_MODELS:
        raise ValueError(f"consistency.sampling must be one of {SAMPLING_MODELS}, not {sampling!r}")


def image_shape(image: NDArray[Any], name: str) -> tuple[int, int]:
    """(H, W) of an image.

    Raises:
        ValueError: it is not (H, W) or is empty; the message calls it `name`.
    """
    if image.ndim != 2 or not image.size:
        raise ValueError(f"{name} must be (H, W) and not empty, not {image.shape}")
    return image.shape[0], image.shape[1]


def _mean64(image: NDArray[np.float32], scale: int) -> NDArray[np.float64]:
    size = (image.shape[1] // scale, image.shape[0] // scale)
    return np.asarray(cv2.resize(image.astype(np.float64), size, interpolation=cv2.INTER_AREA), np.float64)


def _excess(residual: NDArray[np.float64], aim: float) -> NDArray[np.float64]:
    return residual - np.clip(residual, -aim, aim)


@lru_cache(maxsize=16)
def _sampling_kernel(scale: int) -> NDArray[np.float64]:
    """The 1-D filter that equals area-downsampling after bicubic upsampling by `scale`: (5,) float64."""
    impulse = np.zeros((1, 15), np.float64)
    impulse[0, 7] = 1.0
    up = cv2.resize(impulse, (15 * scale, 1), interpolation=cv2.INTER_CUBIC)
    return up.reshape(15, scale).mean(axis=1)[5:10].copy()


def upsample_field(field: NDArray[np.float64], scale: int) -> NDArray[np.float32]:
    """Bicubic upsampling of a correction: (h, w) to (h * scale, w * scale) float32."""
    size = (field.shape[1] * scale, field.shape[0] * scale)
    return np.asarray(cv2.resize(field.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), np.float32)


def invert_sampling(
    residual: NDArray[np.float64], aim: float, scale: int, iterations: int
) -> NDArray[np.float64]:
    """Small image whose bicubic upsampling (`upsample_field`) brings block means to within `aim`.

    Args:
        residual: (h, w) what the block means lack.
        aim: what may be left over, at least 0, same units.
        scale: side of a block in pixels.
        iterations: steps; more come closer.

    Returns:
        (h, w) float64.
    """
    kernel = _sampling_kernel(scale)
    field = np.zeros_like(residual)
    left = residual
    for _ in range(iterations):
        step = _excess(left, aim)
        if not step.any():
            break
        field += step
        # cv2.resize repeats border pixels when it upsamples, and so does this filter.
        left = residual - cv2.sepFilter2D(field, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return field


def _correct(
    corrected: NDArray[np.float32],
    residual: NDArray[np.float64],
    aim: float,
    scale: int,
    iterations: int,
) -> None:
    """Add the smooth correction, then per block what it left over; in place."""
    residual = np.where(np.isfinite(residual), residual, 0.0)
    excess = _excess(residual, aim)
    if not excess.any():
        return
    if scale == 1:
        corrected += excess.astype(np.float32)
        return
    field = invert_sampling(residual, aim, scale, iterations)
    corrected += upsample_field(field, scale)
    kernel = _sampling_kernel(scale)
    reached = cv2.sepFilter2D(field, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    rest = _excess(residual - reached, aim)
    if rest.any():
        size = (corrected.shape[1], corrected.shape[0])
        corrected += cv2.resize(rest.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)


def _blocks(image: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """(H, W) as a view of (h, w, scale, scale) blocks."""
    height, width = image.shape
    return image.reshape(height // scale, scale, width // scale, scale).transpose(0, 2, 1, 3)


def _refit_blocks(
    corrected: NDArray[np.float32],
    failed: NDArray[np.bool_],
    target: NDArray[np.float64],
    aim: float,
    *,
    scale: int,
    value_range: tuple[float, float] | None,
) -> None:
    """Give failed blocks the nearest allowed mean and as much of their contrast as fits; in place.

    A block fails where saturation cut one side of its contrast.
    """
    blocks = _blocks(corrected, scale)
    content = blocks[failed].astype(np.float64)
    mean = content.mean(axis=(1, 2), keepdims=True)
    wanted = target[failed][:, None, None]
    allowed = np.clip(mean, wanted - aim, wanted + aim)
    detail = content - mean
    room = np.ones_like(allowed)
    if value_range is not None:
        allowed = np.clip(allowed, *value_range)
        peak = np.maximum(detail.max(axis=(1, 2), keepdims=True), 1e-30)
        dip = np.maximum(-detail.min(axis=(1, 2), keepdims=True), 1e-30)
        room = np.minimum(room, (value_range[1] - allowed) / peak)
        room = np.minimum(room, (allowed - value_range[0]) / dip)
    blocks[failed] = (allowed + room * detail).astype(np.float32)


def _flatten_blocks(
    corrected: NDArray[np.float32],
    failed: NDArray[np.bool_],
    target: NDArray[np.float64],
    aim: float,
    *,
    scale: int,
    value_range: tuple[float, float] | None,
) -> None:
    """Replace failed blocks by the measurement itself; in place.

    What still fails has values so far above the measurement that float32 cannot hold both.
    """
    value = target[failed] if value_range is None else np.clip(target[failed], *value_range)
    _blocks(corrected, scale)[failed] = value.astype(np.float32)[:, None, None]
