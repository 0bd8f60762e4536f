"""Camera geometry: the pinhole model of sensor_msgs/CameraInfo and what resizing and cropping do to it.

Pixel coordinates have their integers at pixel centres, so that the picture spans -0.5 to width - 0.5 and
scaling by s moves a point u to s (u + 0.5) - 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import degrees, radians, tan
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_PERSPECTIVE_MODELS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 4, 5, 8, 12, 14)}
_FISHEYE_MODELS = ("equidistant", "fisheye")


class Roi(NamedTuple):
    """Part of the sensor that is sent, in pixels of the full resolution; all zeros mean all of it."""

    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0
    do_rectify: bool = False


_WHOLE = Roi()


def _flat(name: str, values: ArrayLike, counts: Sequence[int] | None) -> tuple[float, ...]:
    try:
        flat = tuple(float(value) for value in np.asarray(values, np.float64).ravel())
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be numbers, not {str(values)[:80]}") from None
    if counts is not None and len(flat) not in counts:
        raise ValueError(f"{name} must have {' or '.join(map(str, counts))} numbers, not {len(flat)}")
    if not np.isfinite(flat).all():
        raise ValueError(f"{name} must be finite, not {flat}")
    return flat


@dataclass(frozen=True)
class CameraModel:
    """Intrinsics of one camera (the fields of sensor_msgs/CameraInfo).

    Matrices are given as nested sequences, arrays or flat row-major sequences and kept as flat row-major
    tuples, as the message has them; `camera_matrix` and `projection_matrix` give arrays.

    Attributes:
        width: columns at full resolution.
        height: rows at full resolution.
        k: 3x3 camera matrix of the raw picture; all zeros for an uncalibrated camera.
        d: distortion coefficients, in normalised coordinates.
        r: 3x3 rectification matrix.
        p: 3x4 projection matrix of the rectified picture; (Tx, Ty) in its last column for stereo.
        distortion_model: "plumb_bob", "rational_polynomial" or "equidistant".
        binning_x: sensor columns that one pixel of the sent picture combines; 0 means 1.
        binning_y: the same for rows.
        roi: part of the full resolution that is sent.
        frame_id: coordinate frame (optical: z forward, x right).
    """

    width: int
    height: int
    k: tuple[float, ...] = (0.0,) * 9
    d: tuple[float, ...] = ()
    r: tuple[float, ...] = IDENTITY
    p: tuple[float, ...] = (0.0,) * 12
    distortion_model: str = "plumb_bob"
    binning_x: int = 0
    binning_y: int = 0
    roi: Roi = _WHOLE
    frame_id: str = ""

    def __post_init__(self) -> None:
        for name, count in (("k", 9), ("r", 9), ("p", 12), ("d", None)):
            value = _flat(name, getattr(self, name), None if count is None else (count,))
            object.__setattr__(self, name, value)
        object.__setattr__(self, "roi", Roi(*self.roi))
        for name in ("width", "height", "binning_x", "binning_y"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if min(self.roi[:4]) < 0:
            raise ValueError(f"roi must not be negative, not {self.roi}")

    @classmethod
    def pinhole(cls, width: int, height: int, hfov_deg: float, frame_id: str = "") -> CameraModel:
        """Ideal camera: square pixels, centred, no distortion.

        Args:
            width: columns.
            height: rows.
            hfov_deg: horizontal field of view between the picture's outer edges, degrees, 0 to 180.
            frame_id: coordinate frame.

        Raises:
            ValueError: a size or field of view that no camera has.
        """
        if width < 1 or height < 1:
            raise ValueError(f"width and height must be positive, not {width}x{height}")
        if not 0 < hfov_deg < 180:
            raise ValueError(f"hfov_deg must be between 0 and 180, not {hfov_deg}")
        f = width / 2 / tan(radians(hfov_deg) / 2)
        cx, cy = (width - 1) / 2, (height - 1) / 2
        k = (f, 0, cx, 0, f, cy, 0, 0, 1)
        return cls(
            width, height, k, (0.0,) * 5, IDENTITY, (f, 0, cx, 0, 0, f, cy, 0, 0, 0, 1, 0), frame_id=frame_id
        )

    @property
    def calibrated(self) -> bool:
        """Whether the intrinsics are known (sensor_msgs/CameraInfo: K[0] is 0 where not)."""
        return self.k[0] != 0.0

    @property
    def camera_matrix(self) -> NDArray[np.float64]:
        """(3, 3) K."""
        return np.array(self.k).reshape(3, 3)

    @property
    def projection_matrix(self) -> NDArray[np.float64]:
        """(3, 4) P."""
        return np.array(self.p).reshape(3, 4)

    @property
    def hfov_deg(self) -> float:
        """Horizontal field of view without distortion, degrees; NaN where not calibrated."""
        return degrees(2 * np.arctan(self.width / 2 / self.k[0])) if self.calibrated else float("nan")

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the picture as sent, with ROI and binning applied."""
        return (
            (self.roi.width or self.width) // max(self.binning_x, 1),
            (self.roi.height or self.height) // max(self.binning_y, 1),
        )

    def _mapped(
        self, sx: float, sy: float, tx: float, ty: float
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """K and P after u' = sx u + tx, v' = sy v + ty; zeros (uncalibrated) stay zeros.

        In P the map leaves (Tx, Ty) scaled only, as a baseline in pixels must be.
        """
        move = np.array([[sx, 0.0, tx], [0.0, sy, ty], [0.0, 0.0, 1.0]])
        k = move @ self.camera_matrix if self.k[0] else self.camera_matrix
        p = move @ self.projection_matrix if self.p[0] else self.projection_matrix
        return tuple(k.ravel().tolist()), tuple(p.ravel().tolist())

    def scaled_xy(self, sx: float, sy: float) -> CameraModel:
        """Model of the picture resized by (sx, sy).

        fx' = sx fx, cx' = sx (cx + 0.5) - 0.5, the same for y and for P, whose Tx and Ty are scaled too.
        Distortion acts on normalised coordinates and stays. Binning stays: it relates the sent picture to
        the full resolution, and both are scaled alike, so that K at full resolution, reduced by ROI and
        binning as before, describes the resized picture. Sizes and the ROI's edges are rounded to whole
        pixels; the intrinsics follow sx and sy, not the rounded size, see `resized`.

        Raises:
            ValueError: a factor that is not positive.
        """
        if not (0 < sx < float("inf") and 0 < sy < float("inf")):
            raise ValueError(f"scale must be positive, not {sx}, {sy}")
        k, p = self._mapped(sx, sy, 0.5 * sx - 0.5, 0.5 * sy - 0.5)
        left, top = round(self.roi.x * sx), round(self.roi.y * sy)
        roi = Roi(
            left,
            top,
            round((self.roi.x + self.roi.width) * sx) - left,
            round((self.roi.y + self.roi.height) * sy) - top,
            self.roi.do_rectify,
        )
        return replace(self, width=round(self.width * sx), height=round(self.height * sy), k=k, p=p, roi=roi)

    def scaled(self, s: float) -> CameraModel:
        """Model of the picture resized by `s` in both directions, see `scaled_xy`."""
        return self.scaled_xy(s, s)

    def resized(self, width: int, height: int) -> CameraModel:
        """Model of the picture resized so that the full resolution becomes exactly width x height."""
        if not self.width or not self.height:
            raise ValueError("width and height of the camera_info are 0: set them before resizing")
        return self.scaled_xy(width / self.width, height / self.height)

    def delivered(self) -> CameraModel:
        """Model of the picture as sent, as a camera of its own: ROI and binning applied and cleared."""
        bx, by = max(self.binning_x, 1), max(self.binning_y, 1)
        k, p = self._mapped(1 / bx, 1 / by, (0.5 - self.roi.x) / bx - 0.5, (0.5 - self.roi.y) / by - 0.5)
        width, height = self.image_size
        return replace(self, width=width, height=height, k=k, p=p, binning_x=0, binning_y=0, roi=Roi())

    def cropped(self, x: int, y: int, width: int, height: int) -> CameraModel:
        """Model of a part of the sent picture, as a camera of its own (see `delivered`).

        Args:
            x: first column kept, in pixels of the sent picture.
            y: first row kept.
            width: columns kept.
            height: rows kept.

        Raises:
            ValueError: the part is empty or not inside the picture.
        """
        model = self.delivered()
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > model.width or y + height > model.height:
            raise ValueError(
                f"crop x={x} y={y} {width}x{height} must lie inside the {model.width}x{model.height} picture"
            )
        k, p = model._mapped(1.0, 1.0, -x, -y)
        return replace(model, width=width, height=height, k=k, p=p)

    def project(self, points: ArrayLike, rectified: bool = False) -> NDArray[np.float64]:
        """Pixels of 3-D points.

        Args:
            points: (N, 3) in the camera's optical frame (of the rectified camera if `rectified`).
            rectified: project with P into the rectified picture, instead of with K and distortion.

        Returns:
            (N, 2) pixels of the full resolution (of the sent picture: `delivered().project`); NaN for
            points that are not in front of the camera.

        Raises:
            ValueError: the camera is uncalibrated, or its distortion model unknown.
        """
        xyz = np.asarray(points, np.float64).reshape(-1, 3)
        pixels = np.full((len(xyz), 2), np.nan)
        front = xyz[:, 2] > 0
        if not (self.p[0] if rectified else self.k[0]):
            raise ValueError("the camera is not calibrated: set camera_matrix in its calibration file")
        if rectified:
            homogeneous = np.c_[xyz[front], np.ones(front.sum())] @ self.projection_matrix.T
            pixels[front] = homogeneous[:, :2] / homogeneous[:, 2:]
        elif front.any():
            pixels[front] = (
                self._distorted(xyz[front]) @ self.camera_matrix[:2, :2].T + self.camera_matrix[:2, 2]
            )
        return pixels

    def _distorted(self, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Normalised picture coordinates after distortion, (N, 2)."""
        zero, d = np.zeros(3), np.array(self.d)
        objects = xyz.reshape(-1, 1, 3)
        if self.distortion_model in _FISHEYE_MODELS and len(d) == 4:
            # All-zero coefficients are still a fisheye lens: r = f theta.
            plane = cv2.fisheye.projectPoints(objects, zero, zero, np.eye(3), d)[0]
        elif not any(self.d):
            plane = xyz[:, :2] / xyz[:, 2:]
        elif len(d) in _PERSPECTIVE_MODELS.get(self.distortion_model, ()):
            plane = cv2.projectPoints(objects, zero, zero, np.eye(3), d)[0]
        else:
            raise ValueError(
                f"distortion_model {self.distortion_model!r} with {len(d)} coefficients is unknown: use "
                "plumb_bob (5), rational_polynomial (8) or equidistant (4)"
            )
        return np.asarray(plane, np.float64).reshape(-1, 2)

    def to_dict(self, camera_name: str = "camera") -> dict[str, Any]:
        """Plain dict of a calibration file, as camera_info_manager writes (without ROI and binning)."""

        def matrix(values: tuple[float, ...], rows: int) -> dict[str, Any]:
            return {"rows": rows, "cols": len(values) // rows, "data": list(values)}

        return {
            "image_width": self.width,
            "image_height": self.height,
            "camera_name": camera_name,
            "camera_matrix": matrix(self.k, 3),
            "distortion_model": self.distortion_model,
            "distortion_coefficients": matrix(self.d, 1),
            "rectification_matrix": matrix(self.r, 3),
            "projection_matrix": matrix(self.p, 3),
        }

    @classmethod
    def from_dict(cls, data: object, source: str = "calibration", frame_id: str = "") -> CameraModel:
        """Model of a calibration file's content, as camera_info_manager reads it.

        Args:
            data: the parsed YAML. rectification_matrix defaults to identity, projection_matrix to K,
                distortion_model to plumb_bob, distortion_coefficients to none.
            source: name of the file, for error messages.
            frame_id: coordinate frame, which the file does not hold.

        Raises:
            ValueError: naming the file and the key that is missing or wrong.
        """
        if not isinstance(data, Mapping):
            raise ValueError(
                f"{source}: must be a mapping with image_width, camera_matrix, ..., not {data!r:.80}"
            )

        def size(key: str) -> int:
            value = data.get(key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{source}: {key} must be a positive whole number, not {value!r:.80}")
            return value

        def matrix(key: str, count: int | None, default: tuple[float, ...] | None) -> tuple[float, ...]:
            value = data.get(key)
            if value is None and default is not None:
                return default
            if not isinstance(value, Mapping) or "data" not in value:
                raise ValueError(f"{source}: {key} must have rows, cols and data, not {value!r:.80}")
            try:
                flat = _flat("data", value["data"], None if count is None else (count,))
            except ValueError as error:
                raise ValueError(f"{source}: {key}: {error}") from None
            rows, cols = value.get("rows"), value.get("cols")
            if not (isinstance(rows, int) and isinstance(cols, int)) or rows * cols != len(flat):
                raise ValueError(f"{source}: {key} says {rows!r} x {cols!r} but has {len(flat)} numbers")
            return flat

        k = matrix("camera_matrix", 9, None)
        model = data.get("distortion_model", "plumb_bob")
        if not isinstance(model, str):
            raise ValueError(f"{source}: distortion_model must be a name, not {model!r:.80}")
        return cls(
            size("image_width"),
            size("image_height"),
            k,
            matrix("distortion_coefficients", None, ()),
            matrix("rectification_matrix", 9, IDENTITY),
            matrix("projection_matrix", 12, (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0)),
            model,
            frame_id=frame_id,
        )
