"""The whole rig: determinism, truth, noise, shutter, parallax, messages."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import FfcState, Units
from thermal_enhance.imaging.telemetry import parse_lepton, split_telemetry
from thermal_enhance.simulation.actors import LABELS
from thermal_enhance.simulation.camera import MotionConfig
from thermal_enhance.simulation.rig import CameraRig, ColorConfig, RigConfig
from thermal_enhance.simulation.schedule import FfcConfig, TimingConfig
from thermal_enhance.simulation.sensor import ThermalConfig, to_kelvin
from thermal_enhance.simulation.world import WorldConfig

QUIET = ThermalConfig(
    width=80,
    height=60,
    netd_k=0.0,
    fpn_pixel_k=0.0,
    fpn_column_k=0.0,
    fpn_row_k=0.0,
    shading_k=0.0,
    offset_drift_k=0.0,
    psf_sigma_px=0.0,
)
SMALL_COLOR = ColorConfig(width=160, height=120)
MOVING = MotionConfig(pan_deg=2.0, sway_m=0.2, forward_m=0.3)
EMPTY = WorldConfig(people=0, cars=0, heating_k=0.0)


def small(**changes) -> RigConfig:
    base = RigConfig(thermal=replace(QUIET, netd_k=0.05, fpn_column_k=0.04), color=SMALL_COLOR, motion=MOVING)
    return replace(base, **changes)


@pytest.fixture(scope="module")
def rig() -> CameraRig:
    return CameraRig(small())


def test_frames_are_a_function_of_configuration_and_index(rig):
    other = CameraRig(small())
    order = (7, 2, 30)
    expected = {i: (rig.thermal_frame(i).data, rig.color_frame(i).data) for i in sorted(order)}
    for i in order:
        assert np.array_equal(other.thermal_frame(i).data, expected[i][0])
        assert np.array_equal(other.color_frame(i).data, expected[i][1])
    truth, again = rig.truth(0.5), other.truth(0.5)
    assert np.array_equal(truth.temperature_k, again.temperature_k) and truth.boxes == again.boxes
    seeded = CameraRig(small(seed=9))
    assert not np.array_equal(seeded.thermal_frame(7).data, expected[7][0])
    assert not np.array_equal(seeded.color_frame(7).data, expected[7][1])


def test_frames_handed_out_are_the_callers_own(rig):
    frame = rig.thermal_frame(3)
    kept = frame.data.copy()
    frame.data[...] = 0
    rig.color_frame(3).data[...] = 0
    assert np.array_equal(rig.thermal_frame(3).data, kept)
    assert rig.color_frame(3).data.max() > 100


def test_time_and_index_name_the_same_frame(rig):
    rate = rig.config.thermal.rate_hz
    for t in (0.0, 12 / rate, 12 / rate + 0.4 / rate):
        by_time = rig.thermal(t)
        by_index = rig.thermal_frame(round(t * rate))
        assert by_time.stamp_ns == by_index.stamp_ns and np.array_equal(by_time.data, by_index.data)
    assert rig.color(0.5).stamp_ns == rig.color_frame(15).stamp_ns
    with pytest.raises(ValueError, match="index"):
        rig.thermal_frame(-1)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_sensor_without_faults_is_the_truth_averaged(scale):
    rig = CameraRig(small(thermal=QUIET))
    truth = rig.truth(1.0, scale)
    assert truth.temperature_k.shape == (60 * scale, 80 * scale) and truth.temperature_k.dtype == np.float32
    assert np.abs(area_down(truth.temperature_k, scale) - rig.noiseless(1.0)).max() < 1e-3
    measured = to_kelvin(rig.thermal(1.0).data, QUIET)
    assert np.abs(area_down(truth.temperature_k, scale) - measured).max() < 0.5 / QUIET.counts_per_k + 2e-3


def test_finer_truth_agrees_up_to_edges():
    rig = CameraRig(small(thermal=QUIET))
    error = area_down(rig.truth(1.0, 8).temperature_k, 8) - rig.noiseless(1.0)
    assert abs(error.mean()) < 0.05 and np.percentile(np.abs(error), 90) < 0.3 and error.std() < 0.5
    exact = CameraRig(small(thermal=replace(QUIET, supersampling=8)))
    error = area_down(exact.truth(1.0, 8).temperature_k, 8) - exact.noiseless(1.0)
    assert np.abs(error).max() < 1e-3


def test_truth_masks_boxes_and_temperatures_agree(rig):
    seen = set()
    for t in (0.0, 2.0, 4.0, 6.0):
        truth = rig.truth(t, 4)
        assert truth.mask.dtype == np.uint8 and set(np.unique(truth.mask)) <= {0, 1, 2}
        assert np.array_equal(truth.mask > 0, truth.instances > 0)
        for box in truth.boxes:
            seen.add(box.label)
            assert min(box.x, box.y) >= 0 and box.x + box.w <= 320 and box.y + box.h <= 240
            rows, cols = np.nonzero(truth.instances == box.track_id)
            assert set(truth.mask[rows, cols]) == {LABELS.index(box.label)}
            assert box.x - 1 <= cols.min() and cols.max() <= box.x + box.w
            assert box.y - 1 <= rows.min() and rows.max() <= box.y + box.h
            if box.visible > 0.99:  # nothing in front: the box is tight but for thin tips of shoes
                tight = (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
                assert (box.x, box.y, box.x + box.w, box.y + box.h) == pytest.approx(
                    tight, abs=2.5
                )  # tips of shoes are thin
            if box.label == "person" and box.visible > 0.9 and box.h > 40:
                body = truth.temperature_k[rows, cols]
                assert 302 < body.max() < 311 and 295 < np.median(body) < 302
    assert seen == {"person", "car"}


def test_boxes_scale_with_the_truth(rig):
    fine, coarse = rig.truth(1.0, 4), rig.truth(1.0, 1)
    assert coarse.mask.shape == (60, 80)
    assert [b.track_id for b in fine.boxes] == [b.track_id for b in coarse.boxes]
    for a, b in zip(fine.boxes, coarse.boxes):
        assert (b.x, b.y, b.w, b.h) == pytest.approx((a.x / 4, a.y / 4, a.w / 4, a.h / 4))
    # Outlines do not grow with the size of the pixels they are drawn with.
    assert (rig.truth(1.0, 8).mask > 0).sum() / 4 == pytest.approx((fine.mask > 0).sum(), rel=0.02)
    with pytest.raises(ValueError, match="scale"):
        rig.truth(0.0, 3)


def test_truth_between_frames_lies_between_them():
    rig = CameraRig(small(motion=MotionConfig()))
    centers = []
    for t in (1.0, 1.05, 1.1):
        centers.append({b.track_id: b.x + b.w / 2 for b in rig.truth(t).boxes if b.visible > 0.99})
    moving = [k for k in centers[0] if k in centers[2] and abs(centers[0][k] - centers[2][k]) > 2]
    assert moving
    for track in moving:
        low, high = sorted((centers[0][track], centers[2][track]))
        assert low < centers[1][track] < high


def test_noise_measured_from_a_static_scene_is_the_netd():
    units = {"units": Units.KELVIN, "encoding": "32FC1"}
    thermal = replace(QUIET, netd_k=0.08, fpn_pixel_k=0.1, fpn_drift_s=0.0, **units)
    rig = CameraRig(small(thermal=thermal, world=EMPTY, motion=MotionConfig()))
    frames = np.stack([rig.thermal_frame(i).data for i in range(12)]).astype(np.float64)
    assert (np.diff(frames, axis=0).std() / np.sqrt(2)) == pytest.approx(0.08, rel=0.05)
    pattern = (frames.mean(axis=0) - rig.noiseless(0.0)).std()
    assert pattern == pytest.approx(np.hypot(0.1, 0.08 / np.sqrt(12)), rel=0.1)
    counts = replace(thermal, units=Units.COUNTS, encoding="mono16")
    rig = CameraRig(small(thermal=counts, world=EMPTY, motion=MotionConfig()))
    frames = np.stack([rig.thermal_frame(i).data for i in range(12)]).astype(np.float64)
    assert (np.diff(frames, axis=0).std() / np.sqrt(2)) == pytest.approx(counts.netd_units, rel=0.1)


def test_fixed_pattern_stays_then_drifts():
    thermal = replace(QUIET, fpn_pixel_k=0.1, fpn_drift_s=50.0, units=Units.KELVIN, encoding="32FC1")
    rig = CameraRig(small(thermal=thermal, world=EMPTY, motion=MotionConfig()))
    scene = rig.noiseless(0.0)
    start, soon, late = ((rig.thermal(t).data - scene).ravel() for t in (0.0, 1.0, 50.0))
    assert np.corrcoef(start, soon)[0, 1] > 0.99
    assert abs(np.corrcoef(start, late)[0, 1]) < 0.1
    assert late.std() == pytest.approx(start.std(), rel=0.1)


def test_shutter_freezes_the_picture_then_jumps():
    ffc = FfcConfig(period_s=20.0, first_s=1.0, freeze_s=0.5, jump_k=0.8)
    thermal = replace(QUIET, netd_k=0.05, fpn_pixel_k=0.1, units=Units.KELVIN, encoding="32FC1")
    rig = CameraRig(small(thermal=thermal, ffc=ffc, world=EMPTY, motion=MotionConfig()))
    frames = [rig.thermal_frame(i) for i in range(60)]
    same = [np.array_equal(a.data, b.data) for a, b in pairwise(frames)]
    assert same == [29 <= i < 44 for i in range(59)]
    assert rig.content_index(35) == 29 and rig.content_index(45) == 45
    assert rig.content_time(35) == pytest.approx(29 / 30)
    assert [f.stamp_ns for f in frames] == sorted({f.stamp_ns for f in frames})
    states = [rig.ffc_state(i / 30) for i in range(60)]
    assert all((state is FfcState.IN_PROGRESS) == (30 <= i < 45) for i, state in enumerate(states))
    before = np.mean([f.data for f in frames[:29]], axis=0)
    after = np.mean([f.data for f in frames[45:]], axis=0)
    assert (after - before).mean() == pytest.approx(0.8, abs=0.02)
    scene = rig.noiseless(0.0)
    assert abs(np.corrcoef((before - scene).ravel(), (after - scene).ravel())[0, 1]) < 0.2
    assert rig.offset_k(25.0) == 0.0  # and back with the next one


def test_offset_drifts_between_corrections():
    rig = CameraRig(small(thermal=replace(QUIET, offset_drift_k=0.5), world=EMPTY))
    assert rig.offset_k(0.0) == 0.0
    assert 0.1 < rig.offset_k(30.0) < rig.offset_k(90.0) < 0.5


def test_heating_warms_the_scene_slowly():
    world = WorldConfig(people=0, cars=0, heating_k=0.5, heating_period_s=40)
    rig = CameraRig(small(thermal=QUIET, world=world, motion=MotionConfig()))
    assert rig.noiseless(10.0) - rig.noiseless(0.0) == pytest.approx(0.5, abs=1e-3)


def test_a_known_person_lands_where_the_homography_says():
    # The first person stands at a known distance; what differs from the empty street is that person.
    still = small(motion=MotionConfig(), baseline_m=(0.3, -0.05, 0.0), color=ColorConfig(320, 240, noise=0.0))
    with_person = CameraRig(replace(still, world=WorldConfig(people=1, cars=0)))
    empty = CameraRig(replace(still, world=WorldConfig(people=0, cars=0)))
    person = with_person.world.at(0.0).actors[0]
    difference = np.abs(with_person.color(0.0).data.astype(int) - empty.color(0.0).data.astype(int))
    in_color = (difference.max(axis=2) > 10).astype(np.uint8)
    truth = with_person.truth(0.0, 4)
    to_fine = with_person.thermal_camera.scaled(4).camera_matrix
    to_fine = to_fine @ np.linalg.inv(with_person.thermal_camera.camera_matrix)

    def overlap(depth: float) -> float:
        homography = to_fine @ with_person.homography(depth)
        mapped = cv2.warpPerspective(in_color, homography, (320, 240), flags=cv2.INTER_NEAREST)
        above = np.s_[: int(truth.boxes[0].y + 0.8 * truth.boxes[0].h)]  # the shadow lies below
        both, either = mapped[above] & truth.mask[above], mapped[above] | truth.mask[above]
        return both.sum() / either.sum()

    assert overlap(person.z) > 0.8
    assert overlap(2.0) < 0.4 and overlap(40.0) < 0.7


def test_rotation_of_the_colour_camera_moves_its_picture_only():
    straight = CameraRig(small(thermal=QUIET, rotation_deg=(0, 0, 0)))
    turned = CameraRig(small(thermal=QUIET, rotation_deg=(0, 0, 5)))
    assert np.array_equal(straight.thermal(0.0).data, turned.thermal(0.0).data)
    assert not np.array_equal(straight.color(0.0).data, turned.color(0.0).data)


def test_a_rig_that_stands_still_renders_the_same_as_one_that_passes_by():
    moving = CameraRig(small(thermal=QUIET, motion=MOVING))
    still = CameraRig(small(thermal=QUIET, motion=MotionConfig()))
    for index in (0, 5, 0):
        still.thermal_frame(index), moving.thermal_frame(index)
    assert np.array_equal(moving.thermal_frame(0).data, still.thermal_frame(0).data)
    assert np.array_equal(moving.color_frame(0).data, still.color_frame(0).data)


def test_stamps_and_schedules():
    timing = TimingConfig(stamp_offset_s=-0.037)
    dropout = TimingConfig(stamp_offset_s=0.012, gaps=((0.5, 0.3),))
    rig = CameraRig(
        small(thermal_timing=timing, color_timing=dropout, clock_jumps=((0.9, -10.0),), epoch_ns=5 * 10**9)
    )
    assert rig.thermal_frame(6).stamp_ns == 5_200_000_000 - 37_000_000
    assert rig.color_frame(6).stamp_ns == 5_200_000_000 + 12_000_000
    thermal, color = rig.thermal_times(1.0), rig.color_times(1.0)
    assert [a.index for a in thermal] == list(range(30))
    assert {a.index for a in color} == set(range(30)) - set(range(15, 24))
    for arrival in thermal:
        assert rig.thermal_frame(arrival.index).stamp_ns == arrival.stamp_ns
    assert thermal[27].stamp_ns - thermal[26].stamp_ns == pytest.approx(-10e9 + 1e9 / 30, abs=2)
    assert [a.index for a in rig.thermal_times(0.5, start_s=0.5)] == list(range(15, 30))


def test_repeats_and_telemetry():
    thermal = ThermalConfig(
        width=160,
        height=120,
        rate_hz=27.0,
        repeats=3,
        units=Units.CENTIKELVIN,
        encoding="16UC1",
        telemetry_rows=2,
        supersampling=1,
    )
    rig = CameraRig(small(thermal=thermal, ffc=FfcConfig(period_s=10, first_s=1.0, freeze_s=0.5)))
    frames = [rig.thermal_frame(i) for i in range(9)]
    for i, frame in enumerate(frames):
        assert frame.data.shape == (122, 160) and frame.data.dtype == np.uint16
        assert np.array_equal(frame.data, frames[i - i % 3].data)
    assert not np.array_equal(frames[2].data, frames[3].data)
    assert len({frame.stamp_ns for frame in frames}) == 9
    picture, rows = split_telemetry(rig.thermal_frame(30).data, 2)
    telemetry = parse_lepton(rows)
    assert telemetry is not None
    assert telemetry.frame_counter == 10 and telemetry.ffc_state is FfcState.IN_PROGRESS
    assert 250 < to_kelvin(picture, thermal).mean() < 310
    assert parse_lepton(split_telemetry(frames[0].data, 2)[1]).ffc_state is FfcState.IMMINENT
    header = CameraRig(small(thermal=replace(thermal, telemetry_position="header")))
    assert parse_lepton(header.thermal_frame(0).data[:2]) is not None


def test_messages_carry_the_drivers_bytes():
    rig = CameraRig(
        small(thermal=replace(QUIET, big_endian=True), color=replace(SMALL_COLOR, encoding="bgr8"))
    )
    raw, frame = rig.thermal_raw(2), rig.thermal_frame(2)
    assert (raw.encoding, raw.is_bigendian, raw.step, raw.height, raw.width) == ("mono16", True, 160, 60, 80)
    assert raw.array is None and raw.stamp_ns == frame.stamp_ns and raw.frame_id == "thermal_optical_frame"
    assert np.array_equal(np.frombuffer(raw.data, ">u2").reshape(60, 80), frame.data)
    color = rig.color_raw(2)
    pixels = np.frombuffer(color.data, np.uint8).reshape(120, 160, 3)
    assert color.encoding == "bgr8" and color.step == 480
    assert np.array_equal(pixels[..., ::-1], rig.color_frame(2).data)
    little = CameraRig(small(thermal=QUIET)).thermal_raw(2)
    assert little.array is not None and np.array_equal(
        np.frombuffer(little.data, "<u2").reshape(60, 80), frame.data
    )


@pytest.mark.parametrize(
    ("units", "encoding", "low", "high"),
    [
        (Units.COUNTS, "mono16", 5000, 12000),
        (Units.CENTIKELVIN, "16UC1", 24000, 38000),
        (Units.KELVIN, "32FC1", 240, 380),
        (Units.CELSIUS, "32FC1", -35, 110),
        (Units.AGC8, "mono8", 0, 255),
    ],
)
def test_encodings_have_their_range(units, encoding, low, high):
    rig = CameraRig(small(thermal=replace(QUIET, units=units, encoding=encoding)))
    frame = rig.thermal_frame(0)
    assert frame.units is units and low <= frame.data.min() < frame.data.max() <= high
    assert rig.thermal_raw(0).encoding == encoding
    if units is Units.AGC8:
        assert (frame.data.min(), frame.data.max()) == (0, 255)


def test_night_darkens_colour_only():
    day, night = CameraRig(small()), CameraRig(small(night=0.9))
    assert np.array_equal(day.thermal(0.0).data, night.thermal(0.0).data)
    assert night.color(0.0).data.mean() < 0.25 * day.color(0.0).data.mean()


def test_cameras_have_the_intrinsics_of_their_pictures(rig):
    assert (rig.thermal_camera.width, rig.thermal_camera.height) == (80, 60)
    assert rig.thermal_camera.hfov_deg == pytest.approx(57)
    assert rig.color_camera.frame_id == "rgb_optical_frame"


@pytest.mark.parametrize("bad", [{"seed": -1}, {"night": 1.5}, {"clock_jumps": ((1.0,),)}])
def test_config_names_the_bad_setting(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RigConfig(**bad)
