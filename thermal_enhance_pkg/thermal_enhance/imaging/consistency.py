"""Radiometric consistency: enhancement may add detail, never heat.

A model's output is compared with the measurement it came from and corrected until the two agree:

* super-resolution: `back_project` corrects block means down to the sensor's noise level, not to zero,
  because the measurement carries noise that must not come back;
* restoration at the same size: `LowFrequencyHold` keeps slow low frequencies, `refit_gain_offset` undoes
  a change of contrast;
* interpolated frames: `clamp_to_envelope` bounds them by their neighbours.
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
    height, width = _shape2(image, "image")
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
    height, width = _shape2(observed, "observed")
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


class LowFrequencyHold:
    """Holds the slow low frequencies of a restored stream to those of its input.

    Restoration removes noise and stripes from single frames, so their fine structure must not be forced
    back. What is held is the difference of block means, input minus output, averaged over stream time: the
    noise of one frame averages out of it, and a moving object does not smear, because it is in both.

    Args:
        block: side of a block in pixels, at least 2.
        time_constant_s: memory of the average, seconds; 0 holds every frame by itself.
    """

    def __init__(self, block: int = 16, time_constant_s: float = 1.0) -> None:
        if block < 2:
            raise ValueError(f"low-frequency hold: block must be at least 2, not {block}")
        if not time_constant_s >= 0:
            raise ValueError(f"low-frequency hold: time_constant_s must not be negative: {time_constant_s}")
        self.block = block
        self.time_constant_s = time_constant_s
        self._bias: NDArray[np.float64] | None = None
        self._known: NDArray[np.bool_] | None = None
        self._stamp_ns = 0

    def reset(self) -> None:
        """Forget the average (gap, clock jump, shutter)."""
        self._bias = None
        self._known = None

    def update(self, output: NDArray[Any], observed: NDArray[Any], stamp_ns: int) -> NDArray[np.float32]:
        """Take in one frame and correct it.

        Args:
            output: (H, W) restored image, finite.
            observed: (H, W) its input, same units; non-finite pixels are ignored.
            stamp_ns: stream time. A stamp before the last one, or a new size, starts afresh.

        Returns:
            (H, W) float32. Its block means equal the input's up to the averaged-out part.

        Raises:
            ValueError: sizes differ or the output has non-finite pixels.
        """
        _shape2(observed, "observed")
        if output.shape != observed.shape:
            raise ValueError(f"output {output.shape} and observed {observed.shape} differ in size")
        corrected = output.astype(np.float32)
        if not np.isfinite(corrected).all():
            raise ValueError("the restored image has non-finite pixels")
        difference, known = _block_means_where_finite(observed.astype(np.float32) - corrected, self.block)
        same_stream = (
            stamp_ns >= self._stamp_ns and self._known is not None and known.shape == self._known.shape
        )
        if self._bias is None or self._known is None or not same_stream:
            self._bias, self._known = difference, known
        else:
            elapsed_s = (stamp_ns - self._stamp_ns) * 1e-9
            weight = 1.0 if self.time_constant_s == 0 else -math.expm1(-elapsed_s / self.time_constant_s)
            step = np.where(self._known, weight, 1.0) * (difference - self._bias)
            self._bias = np.where(known, self._bias + step, self._bias)
            self._known = self._known | known
        self._stamp_ns = stamp_ns
        if not self._known.any():
            return corrected
        # Blocks never seen are taken for average: a step to zero would ring into their neighbours.
        bias = np.where(self._known, self._bias, self._bias[self._known].mean())
        field = _upsample(_invert_sampling(bias, 0.0, self.block, 8), self.block)
        corrected += field[: corrected.shape[0], : corrected.shape[1]]
        return corrected


def hold_low_frequencies(
    output: NDArray[Any], observed: NDArray[Any], state: LowFrequencyHold, stamp_ns: int
) -> NDArray[np.float32]:
    """`state.update(output, observed, stamp_ns)`: hold a restored frame to its input's low frequencies."""
    return state.update(output, observed, stamp_ns)


def fit_gain_offset(
    output: NDArray[Any], observed: NDArray[Any], gain_limits: tuple[float, float] = (0.2, 5.0)
) -> tuple[float, float]:
    """Gain and offset that map an output to its observation: observed ~ gain * output + offset.

    Least squares on 4x4 block means (noise in `output` would bias the gain low), reweighted with Tukey's
    biweight so that dead pixels and removed stripes do not pull.

    Args:
        output: (H, W) image.
        observed: (H, W) its input; non-finite pixels are ignored.
        gain_limits: a gain outside means that the two do not match; then only the offset is fitted.

    Returns:
        (gain, offset); (1, median difference) for a flat or unrelated output, (1, 0) without any finite
        pixel.

    Raises:
        ValueError: sizes differ.
    """
    height, width = _shape2(observed, "observed")
    if output.shape != observed.shape:
        raise ValueError(f"output {output.shape} and observed {observed.shape} differ in size")
    block = 4 if min(height, width) >= 16 else 1
    crop = np.s_[: height - height % block, : width - width % block]
    x = area_down(output[crop], block).ravel().astype(np.float64)
    y = area_down(observed[crop], block).ravel().astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not x.size:
        return 1.0, 0.0
    # Two numbers do not need more than some thousand points.
    thin = max(1, x.size // 5000)
    x, y = x[::thin], y[::thin]
    weight = np.ones_like(x)
    gain, offset = 1.0, float(np.median(y - x))
    for _ in range(5):
        total = weight.sum()
        mean_x, mean_y = float((weight * x).sum() / total), float((weight * y).sum() / total)
        variance = float((weight * np.square(x - mean_x)).sum() / total)
        if variance <= (1e-6 * max(1.0, abs(mean_x))) ** 2:
            return 1.0, float(np.median(y - x))
        gain = float((weight * (x - mean_x) * (y - mean_y)).sum() / total / variance)
        offset = mean_y - gain * mean_x
        error = np.abs(y - gain * x - offset)
        spread = 1.4826 * float(np.median(error))
        if spread <= 1e-9 * max(1.0, abs(mean_y)):
            break
        weight = np.square(np.clip(1.0 - np.square(error / (4.685 * spread)), 0.0, None))
    if not gain_limits[0] <= gain <= gain_limits[1]:
        return 1.0, float(np.median(y - x))
    return gain, offset


def refit_gain_offset(output: NDArray[Any], observed: NDArray[Any]) -> NDArray[np.float32]:
    """Undo a change of gain and offset, for radiometric units; see `fit_gain_offset`.

    Args:
        output: (H, W) restored image.
        observed: (H, W) its input in the units wanted.

    Returns:
        (H, W) float32, gain * output + offset.

    Raises:
        ValueError: sizes differ.
    """
    gain, offset = fit_gain_offset(output, observed)
    # In double: a gain on kelvins in float32 would round away a tenth of a millikelvin per step.
    return (gain * output.astype(np.float64) + offset).astype(np.float32)


def clamp_to_envelope(
    mid: NDArray[Any], a: NDArray[Any], b: NDArray[Any], margin: float = 0.0, radius: int = 1
) -> tuple[NDArray[Any], float]:
    """Bound an interpolated frame by its two neighbours.

    Args:
        mid: (H, W) interpolated frame, finite.
        a: (H, W) frame before; a non-finite pixel leaves the bound to the other frame.
        b: (H, W) frame after.
        margin: how far outside is still allowed, in the units of the frame.
        radius: the envelope is taken over (2 * radius + 1)**2 pixels, so that an edge between its places in
            `a` and `b` is not cut; 0 compares pixel by pixel.

    Returns:
        The bounded frame in `mid`'s dtype, and the share of pixels that were outside, 0 to 1.

    Raises:
        ValueError: sizes differ, `mid` has non-finite pixels, margin or radius is negative.
    """
    _shape2(mid, "mid")
    if not mid.shape == a.shape == b.shape:
        raise ValueError(f"mid {mid.shape}, a {a.shape} and b {b.shape} differ in size")
    if not margin >= 0 or radius < 0:
        raise ValueError(f"margin ({margin}) and radius ({radius}) must not be negative")
    value = mid.astype(np.float32)
    if not np.isfinite(value).all():
        raise ValueError("the interpolated image has non-finite pixels")
    first, second = (np.where(np.isfinite(x), x, np.nan).astype(np.float32) for x in (a, b))
    low, high = np.fmin(first, second), np.fmax(first, second)
    unknown = np.isnan(low)
    low[unknown], high[unknown] = -np.inf, np.inf
    if radius:
        kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        low, high = cv2.erode(low, kernel), cv2.dilate(high, kernel)
    low -= np.float32(margin)
    high += np.float32(margin)
    outside = float(np.mean((value < low) | (value > high)))
    return to_dtype(np.clip(value, low, high), mid.dtype), outside


def _check_sampling(sampling: str) -> None:
    if sampling not in SAMPLING_MODELS:
        raise ValueError(f"consistency.sampling must be one of {SAMPLING_MODELS}, not {sampling!r}")


def _shape2(image: NDArray[Any], name: str) -> tuple[int, int]:
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


def _upsample(field: NDArray[np.float64], scale: int) -> NDArray[np.float32]:
    size = (field.shape[1] * scale, field.shape[0] * scale)
    return np.asarray(cv2.resize(field.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), np.float32)


def _invert_sampling(
    residual: NDArray[np.float64], aim: float, scale: int, iterations: int
) -> NDArray[np.float64]:
    """Small image whose bicubic upsampling brings block means `residual` to within `aim`."""
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
    field = _invert_sampling(residual, aim, scale, iterations)
    corrected += _upsample(field, scale)
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


def _block_means_where_finite(
    image: NDArray[np.float32], block: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Means over blocks, the last row and column cut short by the border: (ceil(H/b), ceil(W/b))."""
    height, width = image.shape
    finite = np.isfinite(image)
    padding = (0, -height % block, 0, -width % block)
    values = cv2.copyMakeBorder(np.where(finite, image, np.float32(0)), *padding, cv2.BORDER_CONSTANT)
    weights = cv2.copyMakeBorder(finite.astype(np.float32), *padding, cv2.BORDER_CONSTANT)
    share = area_down(weights, block).astype(np.float64)
    known = share > 0
    return np.where(known, area_down(values, block) / np.where(known, share, 1.0), 0.0), known
