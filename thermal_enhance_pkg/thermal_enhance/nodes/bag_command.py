"""`thermal-enhance bag`: writes a rosbag2 recording from folders or videos of frames."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thermal_enhance.imaging.frames import Units
from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.imaging.raw import EncodingError
from thermal_enhance.nodes.bag_reader import BagError
from thermal_enhance.nodes.bag_writer import STORAGES, BagWriter
from thermal_enhance.nodes.frame_config import THERMAL_DTYPES, FrameSourceConfig, Misalignment
from thermal_enhance.nodes.frame_files import FrameError
from thermal_enhance.nodes.frame_messages import FrameSource
from thermal_enhance.nodes.frame_source import FrameFolder

_DEFAULTS = FrameSourceConfig()


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    units = [unit.value for unit in Units]
    result = argparse.ArgumentParser(
        prog="thermal-enhance bag",
        description="Write a rosbag2 recording from thermal (and RGB) frames: stamps, camera_info, units.",
    )
    frames = result.add_argument_group("frames")
    frames.add_argument("--thermal", required=True, metavar="DIR|VIDEO", help="thermal frames, 8 or 16 bit")
    frames.add_argument("--rgb", metavar="DIR|VIDEO", help="RGB frames, matched by file stem or by position")
    frames.add_argument("--downscale", type=int, default=1, metavar="N", help="reduce thermal frames N times")
    frames.add_argument("--loop", type=int, default=1, metavar="N", help="send the frames N times")
    frames.add_argument(
        "--fps", type=float, default=0.0, metavar="HZ", help="rate of the frames, if not the video's"
    )
    out = result.add_argument_group("recording")
    out.add_argument("--out", required=True, type=Path, metavar="BAG", help="folder to make")
    out.add_argument("--storage", choices=STORAGES, default="mcap")
    out.add_argument("--force", action="store_true", help="replace an existing recording")
    out.add_argument("--compressed", action="store_true", help="CompressedImage: PNG thermal, JPEG RGB")
    out.add_argument("--zstd", action="store_true", help="compress the recording itself")
    when = result.add_argument_group("time")
    when.add_argument(
        "--rate", type=float, default=0.0, metavar="HZ", help="thermal rate; default the frames' or 30"
    )
    when.add_argument(
        "--rgb-rate", type=float, default=0.0, metavar="HZ", help="RGB rate; default as thermal"
    )
    when.add_argument(
        "--stamps", type=Path, metavar="CSV", help="a row a frame: thermal stamp, RGB stamp (seconds)"
    )
    when.add_argument("--start", type=float, default=_DEFAULTS.start, metavar="SEC", help="first stamp")
    when.add_argument("--rgb-offset", type=float, default=0.0, metavar="SEC", help="error of the RGB stamps")
    when.add_argument(
        "--jitter", type=float, default=0.0, metavar="SEC", help="stamps are off by up to this much"
    )
    when.add_argument("--seed", type=int, default=0, help="of the jitter")
    camera = result.add_argument_group("cameras")
    camera.add_argument(
        "--misalign", default="", metavar="dx=,dy=,rot=,scale=", help="warp the RGB (px, degrees)"
    )
    camera.add_argument(
        "--thermal-encoding", choices=tuple(THERMAL_DTYPES), default="", help="default: as the files"
    )
    camera.add_argument(
        "--source-units", choices=units, default="", help="of the files; default agc8 or counts"
    )
    camera.add_argument("--units", choices=units, default="", help="of the messages; default as the files")
    camera.add_argument(
        "--thermal-info", type=Path, metavar="YAML", help="calibration at the files' resolution"
    )
    camera.add_argument("--rgb-info", type=Path, metavar="YAML", help="calibration of the RGB camera")
    camera.add_argument(
        "--thermal-hfov", type=float, metavar="DEG", help="field of view, where not calibrated"
    )
    camera.add_argument("--rgb-hfov", type=float, metavar="DEG", help="field of view, where not calibrated")
    camera.add_argument("--thermal-topic", default=_DEFAULTS.thermal_topic)
    camera.add_argument("--rgb-topic", default=_DEFAULTS.rgb_topic)
    camera.add_argument("--thermal-frame-id", default=_DEFAULTS.thermal_frame_id)
    camera.add_argument("--rgb-frame-id", default=_DEFAULTS.rgb_frame_id)
    return result


def _camera(path: Path | None, hfov: float | None, size: tuple[int, int], option: str) -> CameraModel | None:
    """Calibration from a file, from a field of view, or none."""
    if path is not None:
        if hfov is not None:
            raise ValueError(f"{option}-info and {option}-hfov exclude each other: give one")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: cannot be read ({error})") from error
        return CameraModel.from_dict(content, str(path))
    if hfov is not None:
        try:
            return CameraModel.pinhole(*size, hfov)
        except ValueError as error:
            raise ValueError(f"{option}-hfov: {error}") from None
    return None


def make_source(options: argparse.Namespace) -> FrameSource:
    """The clip that the options describe.

    Raises:
        FrameError: frames that are missing or cannot be read.
        ValueError: options that do not fit each other or the frames.
    """
    folder = FrameFolder(options.thermal, options.rgb, options.fps)
    first = next(iter(folder), None)
    if first is None:
        raise FrameError(f"{options.thermal}: none of its {len(folder)} frames can be read")
    color_size = (0, 0)
    if folder.rgb is not None:
        color = first.rgb if first.rgb is not None else folder.rgb.read(0)
        color_size = (color.shape[1], color.shape[0])
    elif options.rgb_info or options.rgb_hfov:
        raise ValueError("--rgb-info and --rgb-hfov need --rgb")
    thermal_size = (first.original.shape[1], first.original.shape[0])
    config = FrameSourceConfig(
        rate=options.rate,
        rgb_rate=options.rgb_rate,
        start=options.start,
        stamps=options.stamps,
        rgb_offset=options.rgb_offset,
        jitter=options.jitter,
        misalign=Misalignment.parse(options.misalign),
        thermal_encoding=options.thermal_encoding,
        source_units=options.source_units,
        units=options.units,
        thermal_model=_camera(options.thermal_info, options.thermal_hfov, thermal_size, "--thermal"),
        rgb_model=_camera(options.rgb_info, options.rgb_hfov, color_size, "--rgb"),
        downscale=options.downscale,
        compressed=options.compressed,
        thermal_topic=options.thermal_topic,
        rgb_topic=options.rgb_topic,
        thermal_frame_id=options.thermal_frame_id,
        rgb_frame_id=options.rgb_frame_id,
        loop=options.loop,
        seed=options.seed,
    )
    return FrameSource(folder, config)


def write(source: FrameSource, options: argparse.Namespace, console: Console) -> dict[str, int]:
    """Write the recording, with a progress bar on a terminal; returns {topic: messages}.

    Raises:
        BagError: it cannot be written.
    """
    bar = Progress(
        TextColumn("writing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    writer = BagWriter(options.out, options.storage, options.force, source.custom_data, options.zstd)
    with bar, writer:
        task = bar.add_task("", total=source.message_count)
        for name, topic in source.topics.items():
            writer.add_topic(name, topic.msgtype)
        for message in source.messages():
            writer.write(message.topic, message.timestamp_ns, message.data)
            bar.advance(task)
    return writer.counts


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 when a frame was broken or nothing could be written."""
    options = parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        source = make_source(options)
        try:
            counts = write(source, options, console)
        finally:
            source.close()
    except (FrameError, BagError, EncodingError, ValueError) as error:
        sys.stderr.write(f"thermal-enhance bag: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("thermal-enhance bag: interrupted, nothing was written\n")
        return 130
    listing = ", ".join(f"{name} {count}" for name, count in counts.items())
    sys.stdout.write(
        f"{options.out}: {source.duration_ns / 1e9:.2f} s, thermal in {source.units.value}; {listing}\n"
        f"play it:  thermal-enhance replay {shlex.quote(str(options.out))}\n"
    )
    skipped = source.folder.skipped
    for name, reason in skipped.items():
        sys.stderr.write(f"skipped {name}: {reason}\n")
    if skipped:
        sys.stderr.write(f"{len(skipped)} broken frames were left out\n")
    return 1 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
