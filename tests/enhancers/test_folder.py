"""The offline face on real files: names, depths, broken input, videos, exit codes."""

import cv2
import numpy as np
import pytest

from thermal_enhance.enhancers import folder, media
from thermal_enhance.enhancers.folder import FolderError, FolderJob, enhance_folder, main
from thermal_enhance.enhancers.registry import UnavailableModeError


def thermal(seed=0, dtype=np.uint8, size=(24, 32)):
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.uniform(0, 255, size).astype(np.float32), (0, 0), 2)
    gain = {np.uint8: 1, np.uint16: 100, np.float32: 0.1}[dtype]
    return (image * gain).astype(dtype)


def color(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (48, 64, 3)).astype(np.uint8)


@pytest.fixture
def stills(tmp_path):
    source = tmp_path / "thermal"
    source.mkdir()
    cv2.imwrite(str(source / "a.png"), thermal(0))
    cv2.imwrite(str(source / "b.png"), thermal(1, np.uint16))
    cv2.imwrite(str(source / "c.tiff"), thermal(2, np.float32))
    gray = cv2.cvtColor(thermal(3), cv2.COLOR_GRAY2BGR)
    cv2.imwrite(str(source / "d.webp"), gray, [cv2.IMWRITE_WEBP_QUALITY, 101])
    return source


def listing(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def test_depth_and_stem_are_kept(stills, tmp_path):
    out = tmp_path / "out"
    report = enhance_folder(FolderJob(stills, out, scale=2))
    assert (report.written, report.broken) == (4, [])
    assert listing(out) == ["a.png", "b.png", "c.tiff", "d.png"]
    for name, dtype in (
        ("a.png", np.uint8),
        ("b.png", np.uint16),
        ("c.tiff", np.float32),
        ("d.png", np.uint8),
    ):
        image = cv2.imread(str(out / name), cv2.IMREAD_UNCHANGED)
        assert image.shape == (48, 64) and image.dtype == dtype
    means = cv2.resize(
        cv2.imread(str(out / "b.png"), -1).astype(np.float32), (32, 24), interpolation=cv2.INTER_AREA
    )
    assert np.abs(means - thermal(1, np.uint16)).max() <= 0.5
    assert report.residual_max <= 0.5


def test_default_scale_is_the_modes_own(stills, tmp_path):
    enhance_folder(FolderJob(stills / "a.png", tmp_path / "out"))
    assert cv2.imread(str(tmp_path / "out" / "a.png"), -1).shape == (192, 256)
    enhance_folder(FolderJob(stills / "a.png", tmp_path / "same", mode="passthrough"))
    assert np.array_equal(cv2.imread(str(tmp_path / "same" / "a.png"), -1), thermal(0))


def test_rgb_is_matched_by_stem_and_missing_rgb_is_thermal_alone(stills, tmp_path):
    rgb = tmp_path / "rgb"
    rgb.mkdir()
    cv2.imwrite(str(rgb / "a.jpg"), color())
    report = enhance_folder(FolderJob(stills, tmp_path / "out", rgb=rgb, scale=2))
    assert (report.written, report.without_rgb, len(report.trust)) == (4, 3, 1)
    alone = tmp_path / "alone"
    enhance_folder(FolderJob(stills, alone, scale=2))
    for name in ("b.png", "c.tiff", "d.png"):
        assert (alone / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_broken_files_are_named_and_skipped(stills, tmp_path, capsys):
    (stills / "broken.png").write_bytes(b"\x89PNG not really")
    (stills / "empty.png").write_bytes(b"")
    cv2.imwrite(str(stills / "coloured.png"), color())
    nan = np.full((6, 8), np.nan, np.float32)
    cv2.imwrite(str(stills / "nan.tiff"), nan)
    out = tmp_path / "out"
    assert main(["--thermal", str(stills), "--out", str(out), "--scale", "2"]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 4
    for name in ("broken.png", "empty.png", "coloured.png", "nan.tiff"):
        assert sum(name in line for line in lines) == 1
    assert "4 frames written" in captured.out and "4 broken" in captured.out
    assert listing(out) == ["a.png", "b.png", "c.tiff", "d.png"]


def test_broken_rgb_is_named_and_thermal_still_made(stills, tmp_path, capsys):
    rgb = tmp_path / "rgb"
    rgb.mkdir()
    (rgb / "a.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    assert main(["--thermal", str(stills), "--rgb", str(rgb), "--out", str(out), "--scale", "2"]) == 1
    assert "RGB left out" in capsys.readouterr().err
    assert len(listing(out)) == 4


def test_all_well_is_exit_code_nought(stills, tmp_path, capsys):
    assert main(["--thermal", str(stills), "--out", str(tmp_path / "out"), "--scale", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "4 frames written" in captured.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mode", "restore"], "not available in this version"),
        (["--mode", "magic"], "unknown"),
        (["--scale", "0"], "--scale"),
        (["--scale", "9"], "--scale"),
        (["--thermal", "nowhere"], "nowhere"),
        (["--rgb", "nowhere"], "nowhere"),
        (["--model", "edge"], "--model"),
        (["--task", "people"], "--task"),
        (["--device", "cuda"], "--device"),
        (["--netd", "-1"], "netd"),
    ],
)
def test_senseless_jobs_are_exit_code_two(stills, tmp_path, capsys, options, says):
    base = ["--thermal", str(stills), "--out", str(tmp_path / "out")]
    assert main(base + options) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.out == ""
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_exit_code_two(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert main(["--thermal", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
    assert "no pictures" in capsys.readouterr().err


def test_input_is_never_overwritten(stills):
    before = {p.name: p.read_bytes() for p in stills.iterdir()}
    with pytest.raises(FolderError, match="overwrite"):
        enhance_folder(FolderJob(stills, stills, scale=2))
    with pytest.raises(FolderError, match="overwrite"):
        enhance_folder(FolderJob(stills / "a.png", stills, scale=2))
    assert {p.name: p.read_bytes() for p in stills.iterdir()} == before


def test_two_inputs_of_one_name_are_refused(stills, tmp_path):
    cv2.imwrite(str(stills / "a.tiff"), thermal(0))
    with pytest.raises(FolderError, match="both be written as a"):
        enhance_folder(FolderJob(stills, tmp_path / "out", scale=2))


def test_recursion_keeps_the_structure(tmp_path):
    for place in ("one", "two"):
        (tmp_path / "t" / place).mkdir(parents=True)
        (tmp_path / "c" / place).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "t" / place / "x.png"), thermal(len(place)))
        cv2.imwrite(str(tmp_path / "c" / place / "x.png"), color())
    job = FolderJob(tmp_path / "t", tmp_path / "out", rgb=tmp_path / "c", scale=2, recursive=True)
    report = enhance_folder(job)
    assert listing(tmp_path / "out") == ["one/x.png", "two/x.png"]
    assert report.without_rgb == 0


def test_results_repeat_exactly(stills, tmp_path):
    for name in ("1", "2"):
        enhance_folder(FolderJob(stills, tmp_path / name, scale=4))
    for file in listing(tmp_path / "1"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_progress_counts_every_frame(stills, tmp_path):
    seen = []
    (stills / "broken.png").write_bytes(b"x")
    enhance_folder(FolderJob(stills, tmp_path / "out", scale=2), lambda *state: seen.append(state))
    assert [done for done, _, _ in seen] == [1, 2, 3, 4, 5] and {total for _, total, _ in seen} == {5}


@pytest.mark.parametrize("with_rgb", [False, True])
def test_stills_of_other_scenes_do_not_influence_each_other(tmp_path, with_rgb):
    """Whatever the order, and as if each were alone; levels and noise differ as they do between scenes."""
    rng = np.random.default_rng(5)
    scenes = {}
    for index, (gain, noise) in enumerate(((1, 0.0), (40, 90.0), (7, 12.0))):
        image = thermal(index, np.uint16, (60, 80)) * float(gain) / 10 + 3000 * index
        scenes[f"scene{index}"] = np.rint(image + rng.normal(0, noise, image.shape)).clip(0).astype(np.uint16)
    if with_rgb:
        (tmp_path / "rgb").mkdir()

    def enhanced(order):
        source = tmp_path / ("in" + "".join(name[-1] for name in order))
        source.mkdir()
        for place, name in enumerate(order):
            cv2.imwrite(str(source / f"{place}_{name}.png"), scenes[name])
            if with_rgb:
                cv2.imwrite(str(tmp_path / "rgb" / f"{place}_{name}.png"), color(int(name[-1])))
        out = tmp_path / ("out" + source.name)
        rgb = tmp_path / "rgb" if with_rgb else None
        assert enhance_folder(FolderJob(source, out, rgb=rgb, scale=2)).broken == []
        return {file.stem[2:]: cv2.imread(str(file), -1) for file in out.iterdir()}

    names = list(scenes)
    forward, backward = enhanced(names), enhanced(names[::-1])
    for name in names:
        alone = enhanced([name])[name]
        assert np.array_equal(forward[name], alone) and np.array_equal(backward[name], alone), name


def test_a_clip_is_one_scene_and_a_cut_begins_another(tmp_path, monkeypatch):
    resets = []

    class Watched(folder.build_tiers("classical", folder.ClassicalConfig())[0].__class__):
        def reset(self, reason):
            resets.append((reason, self.frames))
            super().reset(reason)

        frames = 0

        def __call__(self, request):
            self.frames += 1
            return super().__call__(request)

    monkeypatch.setattr(folder, "build_tiers", lambda mode, config: [Watched(config)])
    source = tmp_path / "clip"
    source.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        frame = thermal(3 if index < 4 else 7, size=(48, 64)).astype(np.float32)
        noisy = np.rint(frame + rng.normal(0, 2, frame.shape)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(source / f"{index}.png"), noisy)
    enhance_folder(FolderJob(source, tmp_path / "out", scale=2))
    assert [frames for reason, frames in resets if reason == "scene"] == [0, 4]


def video(path, count=5, gray=True):
    codec = cv2.VideoWriter.fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), codec, 12.0, (64, 48), True)
    assert writer.isOpened()
    for index in range(count):
        frame = thermal(0, size=(48, 64)) if gray else color(0)
        frame = np.roll(frame, index, axis=1)
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if gray else frame)
    writer.release()
    return path


def test_video_to_folder_with_rgb_video(tmp_path):
    job = FolderJob(
        video(tmp_path / "t.avi"), tmp_path / "out", rgb=video(tmp_path / "c.mp4", 4, gray=False), scale=2
    )
    report = enhance_folder(job)
    assert listing(tmp_path / "out") == [f"{i:06d}.png" for i in range(5)]
    assert (report.written, report.without_rgb) == (5, 1)
    assert cv2.imread(str(tmp_path / "out" / "000004.png"), -1).shape == (96, 128)


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_video_to_video_keeps_the_rate(tmp_path, name):
    out = tmp_path / "deep" / name
    report = enhance_folder(FolderJob(video(tmp_path / "t.avi"), out, scale=2))
    assert report.written == 5 and listing(out.parent) == [name]
    reader = media.VideoReader(out)
    assert reader.rate_hz == pytest.approx(12.0, rel=0.01)
    frames = list(reader)
    assert len(frames) == 5 and frames[0].shape == (96, 128, 3)


def test_sixteen_bits_do_not_go_into_a_video(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    cv2.imwrite(str(source / "b.png"), thermal(1, np.uint16))
    report = enhance_folder(FolderJob(source, tmp_path / "out.mp4", scale=2))
    assert report.written == 0 and "uint16" in report.broken[0][1]
    assert not (tmp_path / "out.mp4").exists()


def test_a_video_that_is_none_is_exit_code_two(tmp_path, capsys):
    (tmp_path / "t.mp4").write_bytes(b"no video")
    assert main(["--thermal", str(tmp_path / "t.mp4"), "--out", str(tmp_path / "out")]) == 2
    assert "not a readable video" in capsys.readouterr().err


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(media.os, "replace", fail)
    with pytest.raises(media.MediaError, match="No space left"):
        media.write_image(thermal(), tmp_path, "a")
    assert listing(tmp_path) == []


def test_natural_order(tmp_path):
    for name in ("f10.png", "f2.png", "f1.png", ".hidden.png", "note.txt", "g.png"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in media.list_images(tmp_path, False)] == ["f1.png", "f2.png", "f10.png", "g.png"]


def test_unavailable_mode_is_raised_by_the_library(stills, tmp_path):
    with pytest.raises(UnavailableModeError):
        enhance_folder(FolderJob(stills, tmp_path / "out", mode="restore"))


def test_no_bar_without_a_terminal():
    with folder._progress_bar() as progress:
        assert progress is None


def test_a_bar_on_a_terminal(monkeypatch, stills, tmp_path, capsys):
    monkeypatch.setattr(folder.sys.stderr, "isatty", lambda: True)
    assert main(["--thermal", str(stills), "--out", str(tmp_path / "out"), "--scale", "2"]) == 0
    assert "4/4" in capsys.readouterr().err


def test_a_picture_is_no_output(stills, tmp_path, capsys):
    status = main(["--thermal", str(stills / "a.png"), "--out", str(tmp_path / "one.png"), "--scale", "2"])
    assert status == 2
    assert "name a folder" in capsys.readouterr().err
    assert not (tmp_path / "one.png").exists()
