from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.imaging.frames import FfcState
from thermal_enhance.imaging.shutter import ShutterConfig, ShutterDetector, ShutterEvent

MS = 1_000_000


def _scene(seed: int = 0, shape: tuple[int, ...] = (120, 160)) -> np.ndarray:
    image = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=shape), (0, 0), 6)
    return 29000 + 1500 * (image - image.mean()) / np.ptp(image)


class _Camera:
    """A static scene with noise, fed to a detector at a given rate."""

    def __init__(self, detector: ShutterDetector, period_ms: int = 111, noise: float = 5.0) -> None:
        self.detector, self.period_ms, self.noise = detector, period_ms, noise
        self.scene, self.rng, self.t, self.offset = _scene(), np.random.default_rng(1), 0, 0.0
        self.last = self._shoot()

    def _shoot(self) -> np.ndarray:
        noisy = self.scene + self.offset + self.rng.normal(0, self.noise, self.scene.shape)
        return np.rint(noisy).astype(np.uint16)

    def frame(self, ffc: FfcState | None = None) -> ShutterEvent:
        self.last = self._shoot()
        return self.repeat(ffc)

    def repeat(self, ffc: FfcState | None = None) -> ShutterEvent:
        self.t += self.period_ms * MS
        return self.detector.update(self.last.copy(), self.t, ffc)


def test_a_quiet_stream_says_nothing() -> None:
    camera = _Camera(ShutterDetector())
    for _ in range(30):
        event = camera.frame()
        assert not (event.duplicate or event.frozen or event.offset_jump or event.reset)
        assert event.ffc_state is FfcState.NEVER
        assert abs(event.offset) < 3


def test_uvc_lepton_repeats_are_duplicates_but_no_freeze() -> None:
    camera = _Camera(ShutterDetector(), period_ms=37)
    for _ in range(20):
        events = [camera.frame(), camera.repeat(), camera.repeat()]
        assert [e.duplicate for e in events] == [False, True, True]
        assert not any(e.frozen or e.reset for e in events)
        assert events[-1].ffc_state is FfcState.NEVER


def test_freeze_is_taken_for_an_ffc_and_resets_once_when_it_ends() -> None:
    camera = _Camera(ShutterDetector())
    for _ in range(5):
        camera.frame()
    frozen = [camera.repeat() for _ in range(15)]
    assert [e.frozen for e in frozen] == [False] * 3 + [True] * 12
    assert [e.ffc_state for e in frozen[:3]] == [FfcState.NEVER] * 3
    assert all(e.ffc_state is FfcState.IN_PROGRESS and e.duplicate and not e.reset for e in frozen[3:])
    camera.offset = 240.0
    thaw = camera.frame()
    assert thaw.reset
    assert thaw.offset_jump
    assert thaw.offset == pytest.approx(240, abs=3)
    assert thaw.ffc_state is FfcState.COMPLETE
    assert not thaw.frozen
    after = camera.frame()
    assert not (after.reset or after.offset_jump)
    assert after.ffc_state is FfcState.COMPLETE


def test_freeze_without_an_offset_resets_too() -> None:
    camera = _Camera(ShutterDetector())
    camera.frame()
    for _ in range(10):
        camera.repeat()
    thaw = camera.frame()
    assert thaw.reset
    assert not thaw.offset_jump
    assert thaw.ffc_state is FfcState.COMPLETE


def test_a_slow_stream_needs_several_repeats() -> None:
    camera = _Camera(ShutterDetector(), period_ms=500)
    camera.frame()
    assert [camera.repeat().frozen for _ in range(4)] == [False, False, True, True]


def test_a_source_that_never_changes_is_frozen_but_not_for_ever_in_ffc() -> None:
    camera = _Camera(ShutterDetector(ShutterConfig(max_ffc_s=2.0)))
    camera.frame()
    events = [camera.repeat() for _ in range(40)]
    assert events[10].ffc_state is FfcState.IN_PROGRESS
    assert events[-1].ffc_state is FfcState.NEVER
    assert events[-1].frozen
    assert not any(e.reset for e in events)


@pytest.mark.parametrize("jump", [-300.0, 150.0])
def test_offset_jump_between_consecutive_frames(jump: float) -> None:
    camera = _Camera(ShutterDetector())
    camera.frame()
    camera.offset = jump
    event = camera.frame()
    assert event.offset_jump
    assert event.reset
    assert event.offset == pytest.approx(jump, abs=3)
    assert event.ffc_state is FfcState.COMPLETE
    assert not camera.frame().reset


def test_a_large_moving_object_is_no_jump() -> None:
    camera = _Camera(ShutterDetector())
    camera.frame()
    for column in range(0, 120, 8):
        camera.scene = _scene()
        camera.scene[20:110, column : column + 70] += 2500
        event = camera.frame()
        assert not event.offset_jump
        assert not event.reset


def test_an_object_over_most_of_the_picture_is_no_jump() -> None:
    camera = _Camera(ShutterDetector())
    camera.frame()
    camera.scene = _scene()
    camera.scene[:, 40:] += 500
    event = camera.frame()
    assert event.offset == pytest.approx(500, abs=5)
    assert not event.offset_jump


def test_a_cut_to_another_scene_is_no_offset() -> None:
    camera = _Camera(ShutterDetector())
    camera.scene = 29000 + np.random.default_rng(4).normal(0, 400, camera.scene.shape)
    camera.frame()
    camera.scene = 29700 + np.random.default_rng(5).normal(0, 400, camera.scene.shape)
    event = camera.frame()
    assert event.offset == pytest.approx(700, abs=50)
    assert not event.offset_jump


def test_camera_motion_is_no_jump() -> None:
    camera = _Camera(ShutterDetector())
    world = _scene(3, (400, 600))
    for step in range(40):
        camera.scene = world[step * 6 : step * 6 + 120, step * 9 : step * 9 + 160]
        event = camera.frame()
        assert not event.offset_jump
        assert not event.reset


def test_telemetry_wins_over_the_pictures() -> None:
    camera = _Camera(ShutterDetector())
    camera.frame(FfcState.COMPLETE)
    frozen = [camera.repeat(FfcState.COMPLETE) for _ in range(10)]
    assert frozen[-1].frozen
    assert {e.ffc_state for e in frozen} == {FfcState.COMPLETE}
    assert camera.frame(FfcState.IMMINENT).ffc_state is FfcState.IMMINENT


def test_telemetry_ffc_compares_over_the_closed_shutter() -> None:
    camera = _Camera(ShutterDetector())
    camera.frame(FfcState.COMPLETE)
    camera.frame(FfcState.IMMINENT)
    scene = camera.scene
    camera.scene = np.full_like(scene, 31000.0)
    for _ in range(4):
        event = camera.frame(FfcState.IN_PROGRESS)
        assert event.ffc_state is FfcState.IN_PROGRESS
        assert not (event.offset_jump or event.reset)
        assert event.offset == 0
    camera.scene, camera.offset = scene, -200.0
    end = camera.frame(FfcState.COMPLETE)
    assert end.reset
    assert end.offset_jump
    assert end.offset == pytest.approx(-200, abs=3)
    assert not camera.frame(FfcState.COMPLETE).reset


def test_telemetry_end_during_repeats_resets_once() -> None:
    camera = _Camera(ShutterDetector(), period_ms=37)
    camera.frame(FfcState.IN_PROGRESS)
    events = [
        camera.repeat(FfcState.IN_PROGRESS),
        camera.repeat(FfcState.COMPLETE),
        camera.repeat(FfcState.COMPLETE),
    ]
    assert [e.reset for e in events] == [False, True, False]


def test_telemetry_that_falls_silent_does_not_leave_an_ffc_open() -> None:
    camera = _Camera(ShutterDetector())
    camera.frame(FfcState.IN_PROGRESS)
    event = camera.frame(None)
    assert event.ffc_state is FfcState.COMPLETE
    assert event.reset


@pytest.mark.parametrize("other", [np.zeros((60, 80), np.uint16), np.zeros((120, 160), np.uint8)])
def test_new_size_or_dtype_resets(other: np.ndarray) -> None:
    camera = _Camera(ShutterDetector())
    assert not camera.frame().reset, "the first frame has nothing to reset"
    event = camera.detector.update(other, camera.t + MS)
    assert event.reset
    assert not (event.duplicate or event.offset_jump)
    assert event.offset == 0


def test_nan_frames_equal_themselves_and_never_jump() -> None:
    detector = ShutterDetector()
    frame = _scene().astype(np.float32)
    frame[::2] = np.nan
    assert not detector.update(frame, 0).duplicate
    assert detector.update(frame.copy(), 1).duplicate
    assert not detector.update(np.full_like(frame, np.nan), 2).offset_jump
    assert not detector.update(frame, 3).offset_jump


def test_reused_buffers_are_seen_as_new_frames() -> None:
    detector = ShutterDetector()
    buffer = np.rint(_scene()).astype(np.uint16)
    detector.update(buffer, 0)
    buffer += 300
    event = detector.update(buffer, 100 * MS)
    assert not event.duplicate
    assert event.offset_jump


def test_backward_stamps_do_not_make_a_freeze() -> None:
    camera = _Camera(ShutterDetector())
    camera.frame()
    camera.repeat()
    camera.t -= 10_000 * MS
    assert not camera.repeat().frozen
    assert not camera.repeat().frozen


def test_still_synthetic_video_is_only_flagged() -> None:
    detector = ShutterDetector()
    frame = np.full((64, 64), 128, np.uint8)
    for i in range(8):
        event = detector.update(frame, i * 33 * MS)
        assert event.duplicate == (i > 0)
        assert not event.reset
    frame[10:14, 10:14] = 200
    event = detector.update(frame, 8 * 33 * MS)
    assert not (event.duplicate or event.reset or event.offset_jump)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(
        st.tuples(st.sampled_from("nrj"), st.sampled_from([None, *FfcState]), st.integers(0, 800)),
        max_size=40,
    )
)
def test_invariants_hold_for_any_sequence(tokens: list[tuple[str, FfcState | None, int]]) -> None:
    detector = ShutterDetector()
    rng = np.random.default_rng(0)
    scene, t, told = _scene(shape=(24, 32)), 0, False
    last: Any = None
    for kind, ffc, gap_ms in tokens:
        t += gap_ms * MS
        fresh = kind != "r" or last is None
        if fresh:
            scene = scene + (400.0 if kind == "j" else 0.0)
            last = np.rint(scene + rng.normal(0, 4, scene.shape)).astype(np.uint16)
        event = detector.update(last, t, ffc)
        told = told or ffc is not None
        assert event.duplicate == (not fresh)
        if ffc is not None:
            assert event.ffc_state is ffc
        if event.frozen:
            assert event.duplicate
        if event.duplicate:
            assert event.offset == 0
            assert not event.offset_jump
            assert not event.reset or told
        if event.offset_jump:
            assert event.reset
        if not told:
            assert event.ffc_state is not FfcState.IMMINENT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("freeze_s", -1.0),
        ("freeze_frames", 0),
        ("max_ffc_s", -0.1),
        ("jump_k", -1.0),
        ("jump_agreement", 2.0),
        ("samples", 3),
    ],
)
def test_config_names_what_is_wrong(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"shutter.{name}"):
        ShutterConfig(**{name: value})


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        ShutterDetector().update(np.zeros((2, 2, 3)), 0)
