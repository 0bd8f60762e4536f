"""Views, motion and homographies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.simulation.camera import (
    STILL,
    MotionConfig,
    Pose,
    View,
    plane_homography,
    rotation_matrix,
)

angles = st.floats(-0.1, 0.1)
shifts = st.floats(-0.3, 0.3)


@given(
    st.tuples(angles, angles, angles),
    st.tuples(shifts, shifts, shifts),
    st.floats(1.5, 60),
    st.floats(-0.4, 0.4),
)
def test_homography_maps_points_of_its_plane(turns, baseline, depth, lateral):
    k_from = CameraModel.pinhole(640, 480, 66).camera_matrix
    k_to = CameraModel.pinhole(160, 120, 57).camera_matrix
    turn, offset = rotation_matrix(*turns), np.array(baseline)
    point = np.array([[lateral * depth, -0.2 * depth, depth]])
    to_pixel, _ = View(160, 120, k_to, STILL).project(point)
    from_pixel, _ = View(640, 480, k_from, STILL.moved(offset, turn)).project(point)
    mapped = plane_homography(k_from, k_to, turn, offset, depth) @ np.array([*from_pixel[0], 1.0])
    assert mapped[:2] / mapped[2] == pytest.approx(to_pixel[0], abs=1e-6)


def test_wrong_depth_shows_the_parallax():
    k = CameraModel.pinhole(640, 480, 60).camera_matrix
    baseline, near, far = 0.1, 4.0, 20.0
    h = plane_homography(k, k, np.eye(3), (baseline, 0, 0), far)
    view = View(640, 480, k, STILL.moved((baseline, 0, 0), np.eye(3)))
    pixel, _ = view.project(np.array([[0.0, 0.0, near]]))
    mapped = h @ np.array([*pixel[0], 1.0])
    true, _ = View(640, 480, k, STILL).project(np.array([[0.0, 0.0, near]]))
    assert mapped[0] / mapped[2] - true[0, 0] == pytest.approx(k[0, 0] * baseline * (1 / far - 1 / near))


@given(angles, angles, angles)
def test_rotations_are_rotations(roll, pitch, yaw):
    matrix = rotation_matrix(roll, pitch, yaw)
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_axes_of_rotation_are_optical():
    assert rotation_matrix(0, 0, 0.1) @ [0, 0, 1] == pytest.approx([math.sin(0.1), 0, math.cos(0.1)])
    assert (rotation_matrix(0, 0.1, 0) @ [0, 0, 1])[1] < 0  # pitch up looks up: y is down
    assert (rotation_matrix(0.1, 0, 0) @ [1, 0, 0])[1] > 0  # roll is clockwise


def test_planes_agree_with_projection():
    pose = Pose(rotation_matrix(0.02, -0.03, 0.2), np.array([0.3, -0.1, 0.5]))
    view = View(320, 240, CameraModel.pinhole(320, 240, 57).camera_matrix, pose)
    origin, u, v = np.array([-2.0, 1.5, 6.0]), np.array([0.02, 0, 0]), np.array([0, 0, 0.03])
    homography = view.planes(np.stack([u, v, origin], axis=1)[None])[0]
    pixel = homography @ np.array([40.0, 25.0, 1.0])
    expected, _ = view.project((origin + 40 * u + 25 * v)[None])
    assert pixel[:2] / pixel[2] == pytest.approx(expected[0])


def test_motion_is_periodic_and_starts_at_rest():
    motion = MotionConfig(pan_deg=3, pan_period_s=4, sway_m=0.5, sway_period_s=2, forward_m=0.4)
    assert np.array_equal(motion.pose(0).rotation, np.eye(3))
    assert np.array_equal(motion.pose(0).position, np.zeros(3))
    assert motion.pose(1).rotation[0, 2] == pytest.approx(math.sin(math.radians(3)))
    assert motion.pose(0.5).position[0] == pytest.approx(0.5)
    assert MotionConfig().still and not motion.still


@pytest.mark.parametrize("bad", [{"pan_period_s": 0}, {"pan_deg": 40}, {"sway_m": 3}, {"forward_m": -3}])
def test_motion_names_the_bad_setting(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        MotionConfig(**bad)


def test_homography_needs_a_distance():
    with pytest.raises(ValueError, match="depth_m"):
        plane_homography(np.eye(3), np.eye(3), np.eye(3), (0, 0, 0), 0.0)
