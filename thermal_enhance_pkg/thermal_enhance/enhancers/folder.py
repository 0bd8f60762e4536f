"""The offline face: enhance a folder of pictures or a video, every frame at full tier."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers import media
from thermal_enhance.enhancers.base import Enhancer, EnhanceRequest, LoadingEnhancer
from thermal_enhance.enhancers.classical import ClassicalConfig
from thermal_enhance.enhancers.clip_output import MIDDLE, ClipOutput
from thermal_enhance.enhancers.conditioning import SceneWatch
from thermal_enhance.enhancers.learned import LearnedConfig
from thermal_enhance.enhancers.media import MediaError
from thermal_enhance.enhancers.registry import (
    MODES,
    UnavailableModeError,
    build_tiers,
    default_scale,
    is_learned,
)
from thermal_enhance.enhancers.temporal import TemporalOptions
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame, Units
from thermal_enhance.imaging.shutter import ShutterDetector
from thermal_enhance.runtime.backend import BackendError
from thermal_enhance.runtime.store import ModelFileError

Progress = Callable[[int, int, str], None]
"""Called after each frame with (done, total or 0 if unknown, name)."""

_UNITS = {"uint8": Units.AGC8, "uint16": Units.COUNTS, "float32": Units.COUNTS}


class FolderError(ValueError):
    """The job cannot be done as given; the message names the option to change."""


@dataclass(frozen=True)
class FolderJob:
    """What to enhance.

    Attributes:
        thermal: folder of pictures, one picture, or a video.
        out: folder, or a .mp4, .avi or .mkv file.
        rgb: folder (matched by file stem), one picture, or a video (frame by frame); None for thermal alone.
        mode: see `registry.MODES`.
        scale: 1 to 8; None for the mode's own.
        model: name of a model; for learned modes.
        task: name of a task; for learned modes.
        device: auto, cpu, cuda or cuda:N for learned modes; auto or cpu else.
        recursive: descend into folders; their structure is kept below `out`.
        netd: sensor noise in units of the pixels, see `ClassicalConfig.netd`.
        sampling: area, or off where the input was not area-sampled.
    """

    thermal: Path
    out: Path
    rgb: Path | None = None
    mode: str = "classical"
    scale: int | None = None
    model: str = ""
    task: str = ""
    device: str = "auto"
    recursive: bool = False
    netd: float = 0.0
    sampling: str = "area"

    def __post_init__(self) -> None:
        if self.scale is not None and not 1 <= self.scale <= 8:
            raise FolderError(f"--scale must be 1 to 8, not {self.scale}")


@dataclass
class FolderReport:
    """What became of it.

    Attributes:
        written: files or video frames made of an input.
        interpolated: and those between two inputs.
        broken: (name, reason) of what was skipped.
        without_rgb: frames enhanced without RGB although `rgb` was given.
        residual_max: largest consistency residual, in units of the pixels.
        trust: RGB trust of each frame that had RGB.
        with_rgb: frames in which RGB had a part.
        seconds: time taken.
    """

    written: int = 0
    interpolated: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    without_rgb: int = 0
    residual_max: float = 0.0
    trust: list[float] = field(default_factory=list)
    with_rgb: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Source:
    """One frame to come: where it goes, and how to get at its pixels."""

    name: str
    folder: Path
    stem: str
    thermal: Callable[[], NDArray[Any]]
    color: Callable[[], NDArray[np.uint8]] | None


@dataclass
class _Run:
    """One job at work, and what it remembers from frame to frame."""

    job: FolderJob
    scale: int
    rate_hz: float
    enhancer: Enhancer
    output: ClipOutput
    report: FolderReport
    scenes: SceneWatch = field(default_factory=SceneWatch)
    shutter: ShutterDetector | None = None
    folder: Path | None = None


def enhance_folder(job: FolderJob, progress: Progress | None = None) -> FolderReport:
    """Enhance everything `job` names, in order, deterministically.

    A frame that cannot be read or enhanced is listed in the report and skipped; one whose RGB cannot be
    read is listed too, and enhanced without. Stills of different scenes do not influence each other: where
    `SceneWatch` sees another scene, the enhancer forgets everything. Consecutive frames of one clip share
    value range, noise level, stripes and what was learnt about the cameras' alignment; mode temporal makes
    one of two consecutive frames' middle too, but none across another scene, a broken file, the shutter or
    the border of two folders.

    Raises:
        FolderError: nothing to do, paths that clash, an option that does not fit the mode, or a model that
            does not run here.
        UnavailableModeError: no such mode here, or no such model.
    """
    began = time.monotonic()
    enhancer = _build(job)
    scale = default_scale(job.mode) if job.scale is None else job.scale
    report = FolderReport()
    try:
        total, rate_hz, sources = _sources(job)
        doubled = job.mode.endswith("temporal")
        sink = None
        if media.is_video(job.out):
            sink = media.VideoSink(job.out, rate_hz * 2 if doubled else rate_hz)
        run = _Run(job, scale, rate_hz, enhancer, ClipOutput(sink, doubled), report)
        run.shutter = ShutterDetector() if doubled else None
        done = False
        try:
            for index, source in enumerate(sources):
                _one(source, index, run)
                if progress is not None:
                    progress(index + 1, total, source.name)
            done = True
        finally:
            if sink is not None:
                sink.close(keep=done)
    finally:
        enhancer.close()
    if not report.written and not report.broken:
        raise FolderError(f"--thermal {job.thermal}: no frame in it")
    report.seconds = time.monotonic() - began
    return report


def _one(source: _Source, index: int, run: _Run) -> None:
    job, report, enhancer = run.job, run.report, run.enhancer
    try:
        pixels = source.thermal()
        color = None
        if source.color is not None:
            try:
                color = ColorFrame(source.color())
            except MediaError as error:
                report.broken.append((source.name, f"RGB left out: {error}"))
        if color is None and job.rgb is not None:
            report.without_rgb += 1
        frame = ThermalFrame(pixels, _UNITS[pixels.dtype.name], stamp_ns=round(index * 1e9 / run.rate_hz))
        if run.scenes(pixels):
            enhancer.reset("scene")
        if run.shutter is not None and run.folder not in (None, source.folder):
            # Another clip, however alike its first frame is to the last one of the clip before.
            enhancer.reset("folder")
        run.folder = source.folder
        if run.shutter is not None and run.shutter.update(pixels, frame.stamp_ns).reset:
            enhancer.reset("ffc")
        skew = 0.0 if color is not None else float("nan")
        result = enhancer(EnhanceRequest(frame, color, run.scale, pair_skew_s=skew, task=job.task))
        report.interpolated += run.output.write(result, source.folder, source.stem)
    except (BackendError, ModelFileError) as error:  # no frame can be made, whatever its file
        raise FolderError(str(error)) from error
    except Exception as error:  # one bad file must not end the run
        report.broken.append((source.name, str(error).strip() or type(error).__name__))
        enhancer.reset("broken")
        return
    report.written += 1
    report.residual_max = max(report.residual_max, result.consistency_residual)
    if color is not None:
        report.trust.append(result.rgb_trust)
        report.with_rgb += result.rgb_used


def _build(job: FolderJob) -> Enhancer:
    if job.mode not in MODES:
        raise UnavailableModeError(job.mode)
    classical = ClassicalConfig(netd=job.netd, sampling=job.sampling, per_frame_alignment=True)
    if job.task:
        raise FolderError(f"--task needs a mode with tasks; mode {job.mode} has none")
    if not is_learned(job.mode):
        enhancer = build_tiers(job.mode, classical)[0]
        if job.model:
            raise FolderError(f"--model needs a learned mode; mode {job.mode} has none")
        if job.device not in ("auto", "cpu"):
            raise FolderError(f"--device must be auto or cpu in mode {job.mode}, not {job.device!r}")
        return enhancer
    learned = LearnedConfig(model=job.model, device=job.device)
    if job.mode == "temporal":
        if job.rgb is not None:
            raise FolderError("--rgb: mode temporal does not look at RGB; leave it out")
        # Nobody else makes the first frame, and every file has its result.
        options = TemporalOptions(alone=True, keep_repeats=True)
        enhancer = build_tiers(job.mode, classical, learned, temporal=options)[0]
    else:
        enhancer = build_tiers(job.mode, classical, learned)[0]
    if isinstance(enhancer, LoadingEnhancer):
        scale = default_scale(job.mode) if job.scale is None else job.scale
        smallest = ThermalFrame(np.zeros((1, 1), np.uint8))
        refusal = enhancer.refuses(EnhanceRequest(smallest, scale=scale))
        if refusal:
            raise FolderError(f"--scale: {refusal}")
    return enhancer


def _sources(job: FolderJob) -> tuple[int, float, Iterator[_Source]]:
    """(number of frames or 0, frames per second, the frames)."""
    for option, path in (("--thermal", job.thermal), ("--rgb", job.rgb)):
        if path is not None and not path.exists():
            raise FolderError(f"{option} {path}: no such file or folder")
    here = job.thermal.parent if job.thermal.is_file() else job.thermal
    if job.out.resolve() in (job.thermal.resolve(), here.resolve()):
        raise FolderError(f"--out {job.out}: would overwrite the input; give another folder")
    if not job.out.is_dir() and job.out.suffix.lower() in media.IMAGE_SUFFIXES:
        raise FolderError(f"--out {job.out}: name a folder (pictures keep their names) or a video")
    if job.out.exists() and job.out.is_dir() == media.is_video(job.out):
        raise FolderError(
            f"--out {job.out}: is there already and not a {'file' if job.out.is_dir() else 'folder'}"
        )
    if job.thermal.is_file() and media.is_video(job.thermal):
        try:
            video = media.VideoReader(job.thermal)
            colors = _colors_in_order(job)
        except MediaError as error:
            raise FolderError(str(error)) from error
        return video.frames, video.rate_hz, _video_sources(video, colors, job)
    files = [job.thermal] if job.thermal.is_file() else media.list_images(job.thermal, job.recursive)
    if not files:
        kinds = " ".join(media.IMAGE_SUFFIXES)
        raise FolderError(f"--thermal {job.thermal}: no pictures ({kinds}) in it")
    places = [(file, _place(file, here)) for file in files]
    seen: dict[Path, Path] = {}
    for file, place in places:
        if place in seen:
            raise FolderError(f"{seen[place].name} and {file.name} would both be written as {place.name}")
        seen[place] = file
    if job.mode.endswith("temporal"):
        for file, place in places:
            middle = place.with_name(place.name + MIDDLE)
            if middle in seen:
                raise FolderError(
                    f"{seen[middle].name} and the middle after {file.name} would both be {middle.name}"
                )
    return len(files), 30.0, _file_sources(places, job)


def _place(file: Path, root: Path) -> Path:
    """Path below the root without its suffix: where a frame goes and what its RGB is found by."""
    return file.relative_to(root).with_suffix("")


def _file_sources(places: list[tuple[Path, Path]], job: FolderJob) -> Iterator[_Source]:
    if job.rgb is not None and job.rgb.is_dir():
        colors = {_place(file, job.rgb): file for file in media.list_images(job.rgb, job.recursive)}
        by_stem: dict[str, Path | None] = {}
        for place, file in colors.items():  # a stem that is there twice says nothing
            by_stem[place.name] = None if place.name in by_stem else file
        for file, place in places:
            match = colors.get(place) or by_stem.get(place.name)
            yield _file_source(file, place, job, match)
        return
    if job.rgb is not None and not media.is_video(job.rgb):
        for file, place in places:
            yield _file_source(file, place, job, job.rgb if len(places) == 1 else _same_stem(job.rgb, place))
        return
    frames = _colors_in_order(job)
    for file, place in places:
        source = _file_source(file, place, job, None)
        color = next(frames, None)
        yield (
            source
            if color is None
            else _Source(source.name, source.folder, source.stem, source.thermal, color)
        )


def _same_stem(rgb: Path, place: Path) -> Path | None:
    return rgb if rgb.stem == place.name else None


def _file_source(file: Path, place: Path, job: FolderJob, color: Path | None) -> _Source:
    return _Source(
        str(place.parent / file.name),
        job.out / place.parent,
        place.name,
        partial(media.read_thermal, file),
        None if color is None else partial(media.read_color, color),
    )


def _video_sources(
    video: media.VideoReader, colors: Iterator[Callable[[], NDArray[np.uint8]]], job: FolderJob
) -> Iterator[_Source]:
    for index, bgr in enumerate(video):
        stem = f"{index:06d}"
        gray = media.video_gray(bgr)
        yield _Source(f"{video.path.name}#{stem}", job.out, stem, partial(_same, gray), next(colors, None))


def _same(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels


def _colors_in_order(job: FolderJob) -> Iterator[Callable[[], NDArray[np.uint8]]]:
    """RGB frames of a video (or the pictures of a folder) one after another."""
    if job.rgb is None:
        return iter(())
    if media.is_video(job.rgb):
        video = media.VideoReader(job.rgb)
        return (partial(media.rgb_of, bgr) for bgr in video)
    files = media.list_images(job.rgb, job.recursive) if job.rgb.is_dir() else [job.rgb]
    return (partial(media.read_color, file) for file in files)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `enhance` on a parser."""
    parser.add_argument("--mode", default="classical", help=f"one of {', '.join(MODES)} (default: classical)")
    parser.add_argument("--thermal", type=Path, required=True, metavar="DIR|FILE", help="pictures or a video")
    parser.add_argument("--rgb", type=Path, metavar="DIR|FILE", help="RGB, matched by file stem")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR|VIDEO", help="where results go")
    parser.add_argument(
        "--scale",
        type=int,
        help="output over input size, 1 to 8, or what the model makes (default: the mode's)",
    )
    parser.add_argument("--model", default="", help="model of a learned mode")
    parser.add_argument("--task", default="", help="task of a learned mode")
    parser.add_argument("--device", default="auto", help="of a learned mode: auto, cpu, cuda or cuda:N")
    parser.add_argument("--recursive", action="store_true", help="descend into folders")
    parser.add_argument("--netd", type=float, default=0.0, help="sensor noise in pixel units (default: 0)")
    parser.add_argument(
        "--sampling", choices=("area", "off"), default="area", help="off for input that was not area-sampled"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what parsed options say.

    Returns:
        0 all done, 1 some frame was broken, 2 the job cannot be done as given.
    """
    try:
        job = FolderJob(**{name: getattr(arguments, name) for name in FolderJob.__dataclass_fields__})
        with _progress_bar() as progress:
            report = enhance_folder(job, progress)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"thermal-enhance enhance: {error}\n")
        return 2
    for name, reason in report.broken:
        sys.stderr.write(f"{reason}\n" if Path(name).name in reason else f"{name}: {reason}\n")
    sys.stdout.write(_summary(job, report))
    return 1 if report.broken else 0


def main(argv: Sequence[str] | None = None) -> int:
    """`thermal-enhance enhance`; see `run` for the exit code."""
    parser = argparse.ArgumentParser(prog="thermal-enhance enhance", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _summary(job: FolderJob, report: FolderReport) -> str:
    noun = "frame" if report.written == 1 else "frames"
    between = f" and {report.interpolated} between them" if report.interpolated else ""
    frames = f"{report.written} {noun}{between} written to {job.out} in {report.seconds:.1f} s"
    rgb = ""
    if report.trust:
        rgb = (
            f", RGB used in {report.with_rgb} of {len(report.trust)} (mean trust {np.mean(report.trust):.2f})"
        )
    missing = f", {report.without_rgb} without RGB" if report.without_rgb else ""
    broken = f", {len(report.broken)} broken" if report.broken else ""
    return f"{frames}{rgb}{missing}{broken}, largest consistency residual {report.residual_max:.3g}\n"


@contextlib.contextmanager
def _progress_bar() -> Iterator[Progress | None]:
    """A bar on stderr while it is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total or None, description=name)

        yield show
