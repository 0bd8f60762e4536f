"""Pinhole views of the simulated world, the rig's motion, and the homographies between its cameras.

World axes follow the optical convention (REP 103): x right, y down, z forward; metres. Pixel coordinates
have their origin at the centre of the first pixel, as OpenCV's do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

NEAR_M = 0.3
"""Nothing closer than this is drawn."""


@dataclass(frozen=True)
class MotionConfig:
    """How the rig moves: three independent sinusoids of time, so any moment can be rendered alone.

    Attributes:
        pan_deg: amplitude of the turn about the vertical axis, degrees.
        pan_period_s: its period, seconds.
        sway_m: amplitude sideways, metres.
        sway_period_s: its period, seconds.
        forward_m: amplitude along the optical axis, metres.
        forward_period_s: its period, seconds.
    """

    pan_deg: float = 0.0
    pan_period_s: float = 11.0
    sway_m: float = 0.0
    sway_period_s: float = 7.0
    forward_m: float = 0.0
    forward_period_s: float = 17.0

    def __post_init__(self) -> None:
        for name in ("pan_period_s", "sway_period_s", "forward_period_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"motion.{name} must be greater than 0, not {getattr(self, name)}")
        if abs(self.pan_deg) > 15:
            raise ValueError(
                f"motion.pan_deg must be within 15 degrees (the street is finite): {self.pan_deg}"
            )
        if abs(self.sway_m) > 2 or abs(self.forward_m) > 2:
            raise ValueError(
                f"motion.sway_m and motion.forward_m must be within 2 m: {self.sway_m}, {self.forward_m}"
            )

    @property
    def still(self) -> bool:
        """Does the rig stand still?"""
        return not (self.pan_deg or self.sway_m or self.forward_m)

    def pose(self, t_s: float) -> Pose:
        """Pose of the thermal camera at a time; the identity at t = 0."""
        pan = math.radians(self.pan_deg) * math.sin(2 * math.pi * t_s / self.pan_period_s)
        sway = self.sway_m * math.sin(2 * math.pi * t_s / self.sway_period_s)
        forward = self.forward_m * math.sin(2 * math.pi * t_s / self.forward_period_s)
        return Pose(rotation=rotation_matrix(0.0, 0.0, pan), position=np.array([sway, 0.0, forward]))


@dataclass(frozen=True)
class Pose:
    """Where a camera is.

    Attributes:
        rotation: (3, 3) camera axes in world coordinates (camera to world).
        position: (3,) optical centre in the world, metres.
    """

    rotation: Matrix
    position: Matrix

    def moved(self, offset: ArrayLike, rotation: Matrix) -> Pose:
        """Pose of something fixed to this camera at `offset` (its axes), turned by `rotation`."""
        return Pose(self.rotation @ rotation, self.position + self.rotation @ np.asarray(offset, float))


STILL = Pose(rotation=np.eye(3), position=np.zeros(3))
"""The rig at rest, where the street is laid out to be seen."""


@dataclass(frozen=True)
class View:
    """One camera at one moment, at one rendering resolution.

    Attributes:
        width: columns.
        height: rows.
        k: (3, 3) intrinsic matrix for this resolution.
        pose: where the camera is.
    """

    width: int
    height: int
    k: Matrix
    pose: Pose

    def to_camera(self, points: ArrayLike) -> Matrix:
        """World points (..., 3) in camera coordinates, metres."""
        return (np.asarray(points, float) - self.pose.position) @ self.pose.rotation

    def project(self, points: ArrayLike) -> tuple[Matrix, Matrix]:
        """Pixel coordinates (N, 2) and depths (N,) in metres of world points (N, 3).

        Points at or behind the near plane keep their depth, but their pixels mean nothing.
        """
        camera = self.to_camera(points)
        depth = camera[:, 2]
        homogeneous = camera @ self.k.T
        return homogeneous[:, :2] / np.maximum(depth, 1e-6)[:, None], depth

    def planes(self, planes: Matrix) -> Matrix:
        """Homographies (N, 3, 3) from plane coordinates (i, j) to pixels.

        Args:
            planes: (N, 3, 3) whose columns are the world steps along i and along j, and the world point of
                (0, 0), metres.
        """
        relative = planes.copy()
        relative[:, :, 2] -= self.pose.position
        return (self.k @ self.pose.rotation.T) @ relative


def rotation_matrix(roll_rad: float, pitch_rad: float, yaw_rad: float) -> Matrix:
    """Rotation (3, 3) in optical axes: yaw about y (right is positive), pitch about x, roll about z."""
    cr, sr = math.cos(roll_rad), math.sin(roll_rad)
    cp, sp = math.cos(pitch_rad), math.sin(pitch_rad)
    cy, sy = math.cos(yaw_rad), math.sin(yaw_rad)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def plane_homography(
    k_from: Matrix, k_to: Matrix, rotation: Matrix, offset: ArrayLike, depth_m: float
) -> Matrix:
    """Homography between two cameras for a plane parallel to the second one's image.

    With X_to = rotation X_from + offset and the plane Z_to = depth, H = (K_from R^T (I - offset n^T / depth)
    K_to^-1)^-1 (Hartley and Zisserman, Multiple View Geometry, 13.1).

    Args:
        k_from: (3, 3) intrinsics of the camera the pixels come from.
        k_to: (3, 3) intrinsics of the camera they go to.
        rotation: (3, 3) axes of the first camera in those of the second.
        offset: (3,) first camera's centre in the second's coordinates, metres.
        depth_m: distance of the plane along the second camera's axis, metres.

    Returns:
        (3, 3) homography, normalised to H[2, 2] = 1.

    Raises:
        ValueError: depth_m is not positive.
    """
    if not depth_m > 0:
        raise ValueError(f"depth_m must be greater than 0, not {depth_m}")
    normal = np.array([0.0, 0.0, 1.0])
    back = np.eye(3) - np.outer(np.asarray(offset, float), normal) / depth_m
    homography = np.linalg.inv(k_from @ rotation.T @ back @ np.linalg.inv(k_to))
    return homography / homography[2, 2]
