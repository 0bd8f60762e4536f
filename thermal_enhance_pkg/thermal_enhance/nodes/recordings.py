"""Opens whatever can be played: a rosbag2 recording, or a clip as if it were one."""

from __future__ import annotations

from pathlib import Path

from thermal_enhance.nodes.bag_reader import STORAGE_SUFFIXES, BagError, BagReader
from thermal_enhance.nodes.clips import choose_clips, discover_clips
from thermal_enhance.nodes.frame_config import FrameSourceConfig
from thermal_enhance.nodes.frame_files import FrameError
from thermal_enhance.nodes.frame_messages import FrameSource
from thermal_enhance.nodes.frame_source import FrameFolder


def is_bag(path: str | Path) -> bool:
    """Does `path` look like a rosbag2 recording rather than a folder of frames or a video?"""
    path = Path(path)
    if path.is_dir():
        return (path / "metadata.yaml").exists() or any(_is_storage(p) for p in path.iterdir())
    return _is_storage(path) or path.suffix == ".bag"


def open_recording(path: str | Path, config: FrameSourceConfig | None = None) -> BagReader | FrameSource:
    """Open a bag, or the most telling clip of a folder of frames (see `choose_clips`).

    Args:
        path: bag folder, storage file, folder of frames or clips, video.
        config: how frames become messages; not used for a bag.

    Raises:
        BagError: nothing there that could be played.
    """
    if is_bag(path) or not Path(path).exists():
        return BagReader(path)
    try:
        return FrameSource(FrameFolder.of(choose_clips(discover_clips(path))[0]), config)
    except FrameError as error:
        raise BagError(f"neither a bag nor frames: {error}") from error


def _is_storage(path: Path) -> bool:
    return path.name.removesuffix(".zstd").endswith(STORAGE_SUFFIXES)
