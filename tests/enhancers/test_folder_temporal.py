"""`enhance --mode temporal` on real files: frames, those between them, breaks, videos."""

import cv2
import numpy as np
import pytest

from tests.enhancers.models import TemporalStore
from tests.enhancers.test_temporal import picture
from thermal_enhance.enhancers import folder, media
from thermal_enhance.enhancers.folder import FolderError, FolderJob, enhance_folder, main
from thermal_enhance.enhancers.registry import build_tiers
from thermal_enhance.imaging.consistency import area_down


@pytest.fixture(autouse=True)
def store(tmp_path_factory, monkeypatch):
    pytest.importorskip("onnxruntime")
    made = TemporalStore(tmp_path_factory.mktemp("models"))
    monkeypatch.setattr(
        folder, "build_tiers", lambda mode, *shared, **more: build_tiers(mode, *shared, store=made, **more)
    )
    return made


def frame(i, dtype=np.uint8, seed=0, **scene):
    levels = picture(i, seed=seed, **scene)
    return np.rint(levels if dtype == np.uint8 else levels * 20 + 28000).astype(dtype)


def clip(path, count=5, dtype=np.uint8, **scene):
    path.mkdir(exist_ok=True)
    for i in range(count):
        cv2.imwrite(str(path / f"f{i}.png"), frame(i, dtype, **scene))
    return path


def listing(path):
    return sorted(p.name for p in path.iterdir())


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_frame_and_the_middle_to_the_next(tmp_path, dtype):
    source, out = clip(tmp_path / "in", 4, dtype), tmp_path / "out"
    report = enhance_folder(FolderJob(source, out, mode="temporal"))
    assert (report.written, report.interpolated, report.broken) == (4, 3, [])
    assert listing(out) == ["f0.png", "f0_mid.png", "f1.png", "f1_mid.png", "f2.png", "f2_mid.png", "f3.png"]
    for i in range(4):
        made = read(out / f"f{i}.png")
        assert made.shape == (96, 128) and made.dtype == dtype
        assert np.abs(area_down(made, 4) - frame(i, dtype)).max() <= 0.5
    span = 255 if dtype == np.uint8 else 5100
    middle = area_down(read(out / "f1_mid.png"), 4)
    blend = (frame(1, dtype).astype(float) + frame(2, dtype)) / 2
    assert np.abs(middle - blend).mean() < 0.05 * span
    assert np.abs(middle - frame(0, dtype)).mean() > np.abs(middle - blend).mean()


def test_a_clip_gives_what_the_stream_gives(tmp_path, store):
    from tests.enhancers.test_temporal import frame as streamed
    from tests.enhancers.test_temporal import play, tier

    enhance_folder(FolderJob(clip(tmp_path / "in", 6), tmp_path / "out", mode="temporal"))
    live = play(tier(store), [streamed(i) for i in range(6)])
    for i in range(3, 6):
        assert np.array_equal(read(tmp_path / "out" / f"f{i}.png"), live[i].thermal.data)
        assert np.array_equal(read(tmp_path / "out" / f"f{i - 1}_mid.png"), live[i].extra[0].data)


def test_a_broken_file_is_named_skipped_and_nothing_is_made_up_across_it(tmp_path, capsys):
    source, out = clip(tmp_path / "in", 7), tmp_path / "out"
    (source / "f3.png").write_bytes(b"\x89PNG not really")
    assert main(["--mode", "temporal", "--thermal", str(source), "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "f3.png" in captured.err and "6 frames and 4 between them written" in captured.out
    names = listing(out)
    assert "f2.png" in names and "f4.png" in names and "f3.png" not in names
    assert [n for n in names if "mid" in n] == [f"f{i}_mid.png" for i in (0, 1, 4, 5)]


def test_scenes_and_shutters_are_breaks(tmp_path):
    source = clip(tmp_path / "in", 3, np.uint16)
    for i in range(3, 6):
        cv2.imwrite(str(source / f"f{i}.png"), frame(i, np.uint16, seed=8))
    for i in range(6, 9):
        cv2.imwrite(str(source / f"f{i}.png"), frame(i, np.uint16, seed=8) + np.uint16(900))
    report = enhance_folder(FolderJob(source, tmp_path / "out", mode="temporal"))
    assert (report.written, report.interpolated) == (9, 6)
    assert not {"f2_mid.png", "f5_mid.png"} & set(listing(tmp_path / "out"))


def test_clips_in_folders_of_their_own_do_not_run_into_each_other(tmp_path):
    source = tmp_path / "in"
    for number, name in enumerate("ab"):  # one pan, so that no other scene tells them apart
        (source / name).mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(str(source / name / f"f{i}.png"), frame(i + 2 * number))
    out = tmp_path / "out"
    report = enhance_folder(FolderJob(source, out, mode="temporal", recursive=True))
    assert (report.written, report.interpolated) == (4, 2)
    assert listing(out / "a") == listing(out / "b") == ["f0.png", "f0_mid.png", "f1.png"]


def test_equal_pictures_are_frames_too(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for i in range(4):
        cv2.imwrite(str(source / f"f{i}.png"), frame(0))
    report = enhance_folder(FolderJob(source, tmp_path / "out", mode="temporal"))
    assert (report.written, report.interpolated) == (4, 3)


def test_one_picture_is_a_clip_of_one(tmp_path):
    source = clip(tmp_path / "in", 1)
    report = enhance_folder(FolderJob(source / "f0.png", tmp_path / "out", mode="temporal"))
    assert (report.written, report.interpolated) == (1, 0) and listing(tmp_path / "out") == ["f0.png"]


def video(path, count=6):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (32, 24), True)
    for i in range(count):
        writer.write(cv2.cvtColor(frame(i), cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_video_to_video_at_twice_the_rate(tmp_path, name):
    report = enhance_folder(FolderJob(video(tmp_path / "t.avi"), tmp_path / name, mode="temporal"))
    assert (report.written, report.interpolated) == (6, 5)
    reader = media.VideoReader(tmp_path / name)
    assert reader.rate_hz == pytest.approx(24.0, rel=0.01)
    frames = list(reader)
    assert len(frames) == 11 and frames[0].shape == (96, 128, 3)


def test_video_to_folder(tmp_path):
    enhance_folder(FolderJob(video(tmp_path / "t.avi", 3), tmp_path / "out", mode="temporal"))
    stems = [f"{i:06d}" for i in range(3)]
    assert listing(tmp_path / "out") == sorted(
        [*(f"{s}.png" for s in stems), *(f"{s}_mid.png" for s in stems[:2])]
    )


def test_a_video_holds_a_frame_where_nothing_lies_between(tmp_path):
    source = clip(tmp_path / "in", 3)
    for i in range(3, 6):
        cv2.imwrite(str(source / f"f{i}.png"), frame(i, seed=8))
    (source / "f1.png").write_bytes(b"broken")
    report = enhance_folder(FolderJob(source, tmp_path / "out.avi", mode="temporal"))
    assert (report.written, report.interpolated, len(report.broken)) == (5, 2, 1)
    frames = list(media.VideoReader(tmp_path / "out.avi"))
    assert len(frames) == 9, "a frame in every place, so that time goes on evenly"
    assert np.abs(frames[2].astype(int) - frames[3]).mean() < 2.0  # the last one before the cut, held


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--scale", "8"], "--scale: scale 8 is not that of model numpy: it makes 4"),
        (["--rgb", "."], "--rgb: mode temporal does not look at RGB"),
        (["--model", "magic"], "'magic' is unknown; known for temporal: numpy"),
        (["--task", "people"], "--task"),
    ],
)
def test_senseless_jobs_are_exit_code_two(tmp_path, capsys, options, says):
    source = clip(tmp_path / "in", 2)
    base = ["--mode", "temporal", "--thermal", str(source), "--out", str(tmp_path / "out")]
    assert main(base + options) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_frames_too_large_for_the_model_are_named(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    cv2.imwrite(str(source / "large.png"), frame(0, size=(80, 60)))
    assert main(["--mode", "temporal", "--thermal", str(source), "--out", str(tmp_path / "out")]) == 1
    assert "80x60 frames are too large for model numpy, which takes up to 64x48" in capsys.readouterr().err


def test_a_frame_and_a_middle_of_one_name_are_refused(tmp_path):
    source = clip(tmp_path / "in", 2)
    cv2.imwrite(str(source / "f0_mid.png"), frame(5))
    with pytest.raises(FolderError, match="would both be f0_mid"):
        enhance_folder(FolderJob(source, tmp_path / "out", mode="temporal"))
