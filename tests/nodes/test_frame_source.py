from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.imaging.encodings import decode, decode_thermal
from thermal_enhance.imaging.frames import Units
from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.bag_command import main as bag_main
from thermal_enhance.nodes.bags import BagReader, find_camera_topics
from thermal_enhance.nodes.clips import Clip, choose_clips, discover_clips
from thermal_enhance.nodes.frame_config import FrameSourceConfig, Misalignment, info_topic
from thermal_enhance.nodes.frame_files import FrameError, natural_key, open_sequence, to_gray
from thermal_enhance.nodes.frame_messages import FrameSource, convert_units
from thermal_enhance.nodes.frame_source import FrameFolder, area_down

NANO = 10**9
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
THERMAL, RGB = "/thermal/image_raw", "/rgb/image_raw"


def save(path: Path, image: np.ndarray, *options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image, list(options))


def picture(index: int, dtype: type = np.uint8, height: int = 8, width: int = 12) -> np.ndarray:
    rng = np.random.default_rng(index)
    return rng.integers(0, np.iinfo(dtype).max, (height, width)).astype(dtype)


def color(index: int) -> np.ndarray:
    return np.random.default_rng(100 + index).integers(0, 255, (10, 16, 3)).astype(np.uint8)


def make_clip(root: Path, count: int = 6, dtype: type = np.uint8) -> Path:
    """A clip of frames named so that sorting by character would put 10 before 9."""
    for index in range(count):
        save(root / "thermal" / f"f_{index + 8}.png", picture(index, dtype))
        save(root / "rgb" / f"f_{index + 8}.png", color(index)[..., ::-1])
    return root


def make_video(path: Path, count: int = 8, fps: float = 10.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no mp4")
    for index in range(count):
        writer.write(np.full((48, 64, 3), 20 + 25 * index, np.uint8))
    writer.release()


def source(root: Path, **options: object) -> FrameSource:
    rgb = root / "rgb"
    return FrameSource(
        FrameFolder(root / "thermal", rgb if rgb.exists() else None), FrameSourceConfig(**options)
    )  # type: ignore[arg-type]


def stamps(recording: FrameSource, topic: str) -> list[int]:
    return [cdr.parse_header(m.data)[0] for m in recording.messages([topic])]


def test_natural_order() -> None:
    names = ["a10.png", "a9.png", "b.png", "a9b.png", "A1.png"]
    ordered = sorted((Path(n) for n in names), key=natural_key)
    assert [p.name for p in ordered] == ["A1.png", "a9.png", "a9b.png", "a10.png", "b.png"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_folder_of_pairs(tmp_path: Path, dtype: type) -> None:
    clip = discover_clips(make_clip(tmp_path, dtype=dtype))[0]
    frames = list(FrameFolder.of(clip, rate=10.0, start_ns=5))
    assert [f.name for f in frames] == [f"f_{i + 8}" for i in range(6)]
    assert [f.stamp_ns for f in frames] == [5 + i * NANO // 10 for i in range(6)]
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.thermal, picture(index, dtype))
        assert frame.rgb is not None
        np.testing.assert_array_equal(frame.rgb, color(index))


def test_gray_kept_in_three_channels_is_exact_and_colour_is_refused(tmp_path: Path) -> None:
    gray = picture(1)
    save(tmp_path / "a.webp", np.dstack([gray] * 3), cv2.IMWRITE_WEBP_QUALITY, 101)
    save(tmp_path / "b.tiff", gray.astype(np.float32) + 0.5)
    sequence = open_sequence(tmp_path)
    np.testing.assert_array_equal(sequence.read(0), gray)
    np.testing.assert_array_equal(sequence.read(1), gray.astype(np.float32) + 0.5)
    with pytest.raises(FrameError, match="swapped"):
        to_gray(color(0), "x")
    with pytest.raises(FrameError, match="int16"):
        to_gray(np.zeros((2, 2), np.int16), "x")
    nearly = np.dstack([gray, gray, np.clip(gray.astype(int) + 3, 0, 255).astype(np.uint8)])
    assert np.abs(to_gray(nearly, "x").astype(int) - gray).max() <= 3


def test_missing_and_broken_frames(tmp_path: Path) -> None:
    make_clip(tmp_path)
    (tmp_path / "thermal" / "f_9.png").write_bytes(b"not a png")
    (tmp_path / "thermal" / "f_12.png").write_bytes(b"")
    (tmp_path / "rgb" / "f_8.png").unlink()
    folder = FrameFolder(tmp_path / "thermal", tmp_path / "rgb", rate=10.0)
    frames = list(folder)
    assert [f.index for f in frames] == [0, 2, 3, 5]
    assert [f.stamp_ns for f in frames] == [0, 2 * NANO // 10, 3 * NANO // 10, 5 * NANO // 10]
    assert frames[0].rgb is None and frames[1].rgb is not None
    np.testing.assert_array_equal(frames[1].rgb, color(2))
    assert len(folder.skipped) == 2 and "f_9.png" in str(folder.skipped)
    list(folder)
    assert len(folder.skipped) == 2  # counted once


def test_names_that_do_not_match(tmp_path: Path) -> None:
    make_clip(tmp_path)
    for index, path in enumerate(sorted((tmp_path / "rgb").iterdir(), key=natural_key)):
        path.rename(path.with_name(f"c{index}.png"))
    np.testing.assert_array_equal(FrameFolder(tmp_path / "thermal", tmp_path / "rgb").rgb_at(4), color(4))
    (tmp_path / "rgb" / "c0.png").unlink()
    with pytest.raises(FrameError, match="numbers differ"):
        FrameFolder(tmp_path / "thermal", tmp_path / "rgb")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="no such file"):
        open_sequence(tmp_path / "nope")
    with pytest.raises(FrameError, match="no pictures"):
        open_sequence(tmp_path)
    with pytest.raises(FrameError, match="no clips"):
        discover_clips(tmp_path)
    (tmp_path / "x.mp4").write_bytes(b"nothing of a video")
    with pytest.raises(FrameError, match=r"x\.mp4"):
        open_sequence(tmp_path / "x.mp4")


def test_video_forwards_backwards_and_past_its_end(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4")
    video = open_sequence(tmp_path / "v.mp4")
    assert (len(video), video.fps, video.stem(3)) == (8, 10.0, "000003")
    levels = [float(video.read(i).mean()) for i in (0, 1, 5, 5, 2)]
    assert levels == pytest.approx([20, 45, 145, 145, 70], abs=4)
    with pytest.raises(FrameError, match="frame 20"):
        video.read(20)
    assert float(video.read(7).mean()) == pytest.approx(195, abs=4)
    video.close()
    folder = FrameFolder(tmp_path / "v.mp4")
    assert folder.rate == 10.0 and len(list(folder)) == 8


@given(
    st.integers(1, 4),
    st.integers(4, 9),
    st.integers(4, 9),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
)
def test_area_down_is_the_mean(factor: int, height: int, width: int, dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, 250, (height, width)).astype(dtype)
    small = area_down(image, factor)
    assert small.shape == (height // factor, width // factor) and small.dtype == dtype
    block = image[:factor, :factor].astype(np.float64).mean()
    assert abs(float(small[0, 0]) - block) <= (0.5 if dtype != np.float32 else 1e-3)


def test_downscale_keeps_the_original(tmp_path: Path) -> None:
    make_clip(tmp_path)
    frame = FrameFolder(tmp_path / "thermal", downscale=4).frame(0)
    assert frame is not None and frame.thermal.shape == (2, 3) and frame.original.shape == (8, 12)
    with pytest.raises(FrameError, match="downscale 9"):
        FrameFolder(tmp_path / "thermal", downscale=9).frame(0)


def test_discovery_by_folders_and_names(tmp_path: Path) -> None:
    make_clip(tmp_path / "one", 2)
    make_clip(tmp_path / "deep" / "two", 3)
    save(tmp_path / "plain" / "a.png", picture(0))
    for name in ("w_thermal.mp4", "w_rgb.mp4", "thermal_3.mp4", "rgb_3.mp4", "lone.mp4"):
        make_video(tmp_path / "videos" / name, 2)
    found = {clip.name: clip for clip in discover_clips(tmp_path)}
    assert set(found) == {"one", "deep/two", "plain", "videos/w", "videos/3", "videos/lone"}
    assert found["plain"].rgb is None and found["plain"].frames == 1
    assert found["deep/two"].rgb == tmp_path / "deep" / "two" / "rgb" and found["deep/two"].frames == 3
    assert found["videos/w"].rgb == tmp_path / "videos" / "w_rgb.mp4"
    assert found["videos/3"].thermal.name == "thermal_3.mp4" and found["videos/3"].rgb is not None
    assert [c.name for c in choose_clips(found.values())][:2] == ["deep/two", "one"]
    assert len(choose_clips(found.values(), with_rgb=False)) == 6
    assert discover_clips(tmp_path / "videos" / "lone.mp4") == [
        Clip("lone", tmp_path / "videos" / "lone.mp4")
    ]
    assert discover_clips(tmp_path / "one" / "thermal")[0].thermal == tmp_path / "one" / "thermal"


def test_discovery_by_manifest(tmp_path: Path) -> None:
    make_clip(tmp_path / "set" / "train" / "a")
    make_clip(tmp_path / "set" / "val" / "b")
    entry = {"fps": 9, "frames": 6, "split": "train", "clip": "set/a", "path": "set/train/a/thermal"}
    lines = [
        json.dumps(entry | {"rgb": "set/train/a/rgb"}),
        json.dumps(
            entry | {"rgb": None, "clip": "set/b", "path": "set/val/b/thermal/", "split": "val", "fps": None}
        ),
        json.dumps(entry | {"path": "set/gone", "clip": "gone"}),
        json.dumps({"thermal": "a picture, not a clip"}),
        "not json",
    ]
    (tmp_path / "set" / "manifest.jsonl").write_text("\n".join(lines))
    for where in (tmp_path, tmp_path / "set"):
        clips = discover_clips(where)
        assert [(c.name, c.fps, c.split, c.rgb is not None) for c in clips] == [
            ("set/a", 9.0, "train", True),
            ("set/b", None, "val", False),
        ]
    assert [c.name for c in discover_clips(tmp_path / "set" / "val")] == ["set/b"]


def test_messages_in_order_with_camera_info(tmp_path: Path) -> None:
    model = CameraModel.pinhole(12, 8, 57.0)
    recording = source(
        make_clip(tmp_path, dtype=np.uint16), rate=10.0, start=5.0, downscale=2, thermal_model=model
    )
    messages = list(recording.messages())
    assert [m.timestamp_ns for m in messages] == sorted(m.timestamp_ns for m in messages)
    counts = {name: sum(m.topic == name for m in messages) for name in recording.topics}
    assert counts == {name: topic.count for name, topic in recording.topics.items()}
    assert len(messages) == recording.message_count == 24
    assert (recording.start_ns, recording.end_ns) == (5 * NANO, 5 * NANO + NANO // 2)
    thermal = cdr.parse_image(next(m for m in messages if m.topic == THERMAL).data)
    assert thermal.encoding == "mono16"
    np.testing.assert_array_equal(decode_thermal(thermal), area_down(picture(0, np.uint16), 2))
    info = cdr.parse_camera_info(messages[0].data)
    assert messages[0].topic == info_topic(THERMAL) and messages[1].topic == THERMAL
    assert (info.width, info.height, info.stamp_ns) == (6, 4, thermal.stamp_ns)
    assert info.k[0] == pytest.approx(model.k[0] / 2)
    rgb = cdr.parse_image(next(m for m in messages if m.topic == RGB).data)
    np.testing.assert_array_equal(decode(rgb), color(0))
    assert recording.custom_data["thermal_units"] == "counts"
    np.testing.assert_array_equal(recording.original_at(thermal.stamp_ns), picture(0, np.uint16))
    assert find_camera_topics(recording).rgb == RGB


def test_part_of_the_messages(tmp_path: Path) -> None:
    recording = source(make_clip(tmp_path), rate=10.0, start=0.0)
    part = list(recording.messages([THERMAL], NANO // 10, 3 * NANO // 10))
    assert [m.timestamp_ns for m in part] == [NANO // 10, 2 * NANO // 10]
    assert list(recording.messages(["/nothing"])) == []


def test_offset_jitter_and_seed(tmp_path: Path) -> None:
    make_clip(tmp_path)
    plain = source(tmp_path, rate=10.0)
    moved = source(tmp_path, rate=10.0, rgb_offset=-0.25)
    assert stamps(moved, THERMAL) == stamps(plain, THERMAL)
    assert [a - b for a, b in zip(stamps(moved, RGB), stamps(plain, RGB))] == [-NANO // 4] * 6
    # The clock is wrong, not the moment of arrival.
    assert [m.timestamp_ns for m in moved.messages()] == [m.timestamp_ns for m in plain.messages()]
    jittered = [stamps(source(tmp_path, rate=10.0, jitter=0.01, seed=s), RGB) for s in (1, 1, 2)]
    assert jittered[0] == jittered[1] != jittered[2]
    error = np.array(jittered[0]) - np.array(stamps(plain, RGB))
    assert 0 < np.abs(error).max() <= NANO // 100
    assert list(error) != list(np.array(stamps(source(tmp_path, rate=10.0, jitter=0.01, seed=1), THERMAL)))


def test_rates_of_the_two_cameras(tmp_path: Path) -> None:
    make_clip(tmp_path, 9)
    recording = source(tmp_path, rate=9.0, rgb_rate=30.0)
    assert (recording.topics[THERMAL].count, recording.topics[RGB].count) == (9, 30)
    recording = source(tmp_path, rate=30.0, rgb_rate=10.0)
    sent = [decode(cdr.parse_image(m.data)) for m in recording.messages([RGB])]
    for image, index in zip(sent, (0, 3, 6)):
        np.testing.assert_array_equal(image, color(index))
    # Frames whose own rate is known are sampled, not slowed down.
    folder = FrameFolder(tmp_path / "thermal", rate=30.0)
    sampled = FrameSource(folder, FrameSourceConfig(rate=10.0))
    got = [decode(cdr.parse_image(m.data)) for m in sampled.messages([THERMAL])]
    assert len(got) == 3
    np.testing.assert_array_equal(got[1], picture(3))


def test_stamps_from_a_file(tmp_path: Path) -> None:
    make_clip(tmp_path, 3)
    table = tmp_path / "stamps.csv"
    table.write_text(
        "thermal,rgb\n1700000000.000000001,1700000000.02\n1700000000.1,\n1700000000.25,1700000000.3\n"
    )
    recording = source(tmp_path, stamps=table)
    base = 1_700_000_000 * NANO
    assert stamps(recording, THERMAL) == [base + 1, base + NANO // 10, base + NANO // 4]
    assert stamps(recording, RGB) == [base + NANO // 50, base + 3 * NANO // 10]
    last = decode(cdr.parse_image(list(recording.messages([RGB]))[-1].data))
    np.testing.assert_array_equal(last, color(2))
    for text, reason in (
        ("1\n2\n", "2 stamps for 3"),
        ("1\n3\n2\n", "later than"),
        ("1\n2\nx\n", "later than"),
    ):
        table.write_text(text)
        with pytest.raises(FrameError, match=reason):
            source(tmp_path, stamps=table)


def test_loop_goes_on_in_time(tmp_path: Path) -> None:
    recording = source(make_clip(tmp_path, 3), rate=10.0, start=0.0, loop=3)
    assert stamps(recording, THERMAL) == [i * NANO // 10 for i in range(9)]
    assert recording.end_ns == 8 * NANO // 10
    np.testing.assert_array_equal(recording.original_at(7 * NANO // 10), picture(1))


@given(st.floats(-8, 8), st.floats(-8, 8))
def test_misalignment_moves_the_picture(dx: float, dy: float) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(image, (32, 32), 6, (255, 255, 255), -1)
    moved = Misalignment(dx, dy).apply(image)[..., 0].astype(float)
    y, x = np.mgrid[:64, :64]
    assert (moved * x).sum() / moved.sum() == pytest.approx(32 + dx, abs=0.1)
    assert (moved * y).sum() / moved.sum() == pytest.approx(32 + dy, abs=0.1)


def test_misalignment_by_name() -> None:
    assert Misalignment.parse("dx=4, rot=-1.5") == Misalignment(dx=4, rot=-1.5)
    assert Misalignment.parse("") == Misalignment()
    for text in ("shear=1", "dx=a", "scale=0", "dx=nan"):
        with pytest.raises(ValueError, match="misalign"):
            Misalignment.parse(text)


def test_units_and_encodings(tmp_path: Path) -> None:
    save(tmp_path / "thermal" / "a.png", np.full((4, 4), 29_815, np.uint16))
    celsius = source(tmp_path, source_units="centikelvin", units="celsius", thermal_encoding="32FC1")
    sent = cdr.parse_image(next(celsius.messages([THERMAL])).data)
    assert sent.encoding == "32FC1" and celsius.custom_data["thermal_units"] == "celsius"
    np.testing.assert_allclose(decode(sent), 25.0, atol=1e-4)
    assert (
        cdr.parse_image(next(source(tmp_path, thermal_encoding="16UC1").messages([THERMAL])).data).encoding
        == "16UC1"
    )
    for options, reason in (
        ({"units": "kelvin"}, "counts cannot become kelvin"),
        ({"thermal_encoding": "mono8"}, "holds 0 to 255"),
        ({"source_units": "centikelvin", "units": "kelvin", "thermal_encoding": "mono16"}, "32FC1"),
        ({"thermal_model": CameraModel.pinhole(5, 5, 50)}, "thermal camera_info is for 5x5"),
        ({"rgb_topic": "thermal/image_raw"}, "differ"),
        ({"loop": 0}, "loop"),
    ):
        with pytest.raises(ValueError, match=reason):
            source(tmp_path, **options)
    back = convert_units(
        convert_units(np.float32([[20.0]]), Units.CELSIUS, Units.KELVIN), Units.KELVIN, Units.CELSIUS
    )
    np.testing.assert_allclose(back, 20.0, atol=1e-4)


def test_compressed_messages(tmp_path: Path) -> None:
    recording = source(make_clip(tmp_path, dtype=np.uint16), compressed=True)
    message = next(recording.messages([f"{THERMAL}/compressed"]))
    np.testing.assert_array_equal(
        decode_thermal(cdr.parse_compressed_image(message.data)), picture(0, np.uint16)
    )
    assert find_camera_topics(recording).rgb == f"{RGB}/compressed"


def test_bag_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clip(tmp_path / "clip", dtype=np.uint16)
    arguments = ["--thermal", str(tmp_path / "clip" / "thermal"), "--rgb", str(tmp_path / "clip" / "rgb")]
    arguments += ["--out", str(tmp_path / "bag"), "--rate", "9", "--rgb-hfov", "60", "--misalign", "dx=2"]
    assert bag_main(arguments) == 0
    assert "thermal-enhance replay" in capsys.readouterr().out
    bag = BagReader(tmp_path / "bag")
    assert bag.custom_data["thermal_units"] == "counts" and "dx=2.0" in bag.custom_data["rgb_misalignment"]
    assert bag.topics[THERMAL].count == 6
    assert bag_main(arguments) == 1
    assert "--force" in capsys.readouterr().err
    (tmp_path / "clip" / "thermal" / "f_9.png").write_bytes(b"broken")
    assert bag_main([*arguments, "--force", "--storage", "sqlite3"]) == 1
    assert "f_9.png" in capsys.readouterr().err
    assert BagReader(tmp_path / "bag").topics[THERMAL].count == 5
    for extra, reason in (
        (["--thermal-encoding", "mono8"], "mono8"),
        (["--thermal-info", str(tmp_path / "nope.yaml")], "nope.yaml"),
        (["--misalign", "x=1"], "misalign"),
        (["--rate", "-1"], "rate"),
    ):
        assert bag_main([*arguments, "--force", *extra]) == 1
        assert reason in capsys.readouterr().err
    assert BagReader(tmp_path / "bag").topics[THERMAL].count == 5  # what failed left the old recording


def test_calibration_files(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    make_clip(tmp_path / "clip", 2)
    path = tmp_path / "camera.yaml"
    path.write_text(yaml.safe_dump(CameraModel.pinhole(12, 8, 40.0).to_dict("lepton")))
    thermal = str(tmp_path / "clip" / "thermal")
    assert bag_main(["--thermal", thermal, "--out", str(tmp_path / "bag"), "--thermal-info", str(path)]) == 0
    info = BagReader(tmp_path / "bag").first_message(info_topic(THERMAL))
    assert info is not None
    assert cdr.parse_camera_info(info.data).k[0] == pytest.approx(CameraModel.pinhole(12, 8, 40.0).k[0])


@pytest.mark.shared_data
@pytest.mark.skipif(not (SHARED / "README.md").exists(), reason="../shared/data is not there")
def test_real_clips() -> None:
    clips = discover_clips(SHARED / "thermal_video")
    assert any(clip.rgb is not None and clip.fps == 30 for clip in clips)
    lossless = next(c for c in clips if c.name == "m3svd_lossless/0115_1847")
    frame = FrameFolder.of(lossless, downscale=4).frame(3)
    assert frame is not None and frame.rgb is not None
    assert frame.thermal.shape == (120, 160) and frame.original.shape == frame.rgb.shape[:2] == (480, 640)
    lepton = next(c for c in discover_clips(SHARED / "thermal16") if c.name == "thermal16/lepton_v2")
    assert (lepton.fps, lepton.frames) == (9.0, 119)
    assert open_sequence(lepton.thermal).read(0).dtype == np.uint16
    drone = next(c for c in clips if c.name.startswith("drone_ir/"))
    assert open_sequence(drone.thermal).read(5).shape == (256, 320)
