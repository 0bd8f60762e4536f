"""Finds the clips (a thermal camera's frames, perhaps with RGB beside them) in a folder of data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thermal_enhance.nodes.frame_files import VIDEOS, FrameError, natural_key, pictures_in

MANIFEST = "manifest.jsonl"
THERMAL_FOLDERS = ("thermal", "ir", "infrared", "lwir", "t")
RGB_FOLDERS = ("rgb", "color", "colour", "visible", "vis", "vi")

_DEPTH = 4
"""Folders this far down are still searched: data/<set>/<split>/<clip>/thermal."""
_THERMAL_WORD = re.compile(r"(?<![a-z])(thermal|infrared|lwir|ir)(?![a-z])", re.IGNORECASE)
_RGB_WORD = re.compile(r"(?<![a-z])(rgb|colou?r|visible|vis)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Clip:
    """One thermal clip.

    Attributes:
        name: short, unique within the folder searched.
        thermal: folder of pictures, or video.
        rgb: the same of the RGB camera; None without one.
        fps: frames a second; None where nothing says.
        split: "train", "val" or "".
        frames: number of thermal frames; None where nothing says without reading.
    """

    name: str
    thermal: Path
    rgb: Path | None = None
    fps: float | None = None
    split: str = ""
    frames: int | None = None


def discover_clips(directory: str | Path) -> list[Clip]:
    """The clips in a folder, in natural order of their names.

    Understood are, first that fits: a manifest (`manifest.jsonl` here, one folder down, or further up where
    it names what is in here: lines with "path", "rgb", "fps", "split"); a folder with `thermal/` and
    perhaps `rgb/` in it; videos, paired where their names differ by thermal/rgb alone; a plain folder of
    pictures; a folder of such folders.

    Raises:
        FrameError: there is no such folder, or no clip in it.
    """
    root = Path(directory)
    if root.is_file():
        return [Clip(root.stem, root)]
    if not root.is_dir():
        raise FrameError(f"{directory}: no such file or folder")
    clips = _from_manifests(root) or _from_folders(root, root, _DEPTH)
    if not clips:
        raise FrameError(
            f"{directory}: no clips in it. Expected: thermal/ and rgb/ folders of pictures, videos named "
            "*thermal* and *rgb*, a folder of thermal pictures, or a manifest.jsonl"
        )
    return sorted(clips, key=lambda clip: natural_key(Path(clip.name.replace("/", "\0"))))


def choose_clips(clips: Iterable[Clip], with_rgb: bool = True) -> list[Clip]:
    """The clips most worth showing first: with RGB where any has it, then the longest.

    Args:
        clips: what was found.
        with_rgb: leave those without RGB out where others have it.
    """
    found = list(clips)
    if with_rgb and any(clip.rgb is not None for clip in found):
        found = [clip for clip in found if clip.rgb is not None]
    return sorted(found, key=lambda clip: -(clip.frames or 0))


def _from_manifests(root: Path) -> list[Clip]:
    near = [root / MANIFEST, *sorted(root.glob(f"*/{MANIFEST}"))]
    above = [parent / MANIFEST for parent in list(root.resolve().parents)[:_DEPTH]]
    for group in (near, above):
        clips = [clip for path in group if path.is_file() for clip in _read_manifest(path, root.resolve())]
        if clips:
            return clips
    return []


def _read_manifest(manifest: Path, within: Path) -> list[Clip]:
    """Clips a manifest names that lie in the folder `within`; lines that name no clip are passed over."""
    clips = []
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        try:
            entry: Any = json.loads(line)
        except ValueError:
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            continue
        thermal = _resolve(manifest, entry["path"])
        if thermal is None or not (within == thermal or within in thermal.parents):
            continue
        rgb = _resolve(manifest, entry["rgb"]) if isinstance(entry.get("rgb"), str) else None
        fps, frames = entry.get("fps"), entry.get("frames")
        clips.append(
            Clip(
                name=str(entry.get("clip") or entry["path"]).rstrip("/"),
                thermal=thermal,
                rgb=rgb,
                fps=float(fps) if isinstance(fps, (int, float)) and fps > 0 else None,
                split=str(entry.get("split") or ""),
                frames=frames if isinstance(frames, int) else None,
            )
        )
    return clips


def _resolve(manifest: Path, name: str) -> Path | None:
    """A path from a manifest, which counts from the manifest's folder or from the one above it."""
    for base in (manifest.parent, manifest.parent.parent):
        path = (base / name).resolve()
        if path.exists():
            return path
    return None


def _from_folders(folder: Path, root: Path, depth: int) -> list[Clip]:
    name = folder.name or "clip" if folder == root else folder.relative_to(root).as_posix()
    below = sorted(
        (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key
    )
    thermal = _named(below, THERMAL_FOLDERS)
    if thermal is not None:
        return [_folder_clip(name, thermal, _named(below, RGB_FOLDERS))]
    clips = _videos(folder, "" if folder == root else f"{name}/")
    pictures = pictures_in(folder)
    if pictures and folder.name.lower() not in RGB_FOLDERS:
        clips.append(Clip(name, folder, frames=len(pictures)))
    if depth > 0:
        for child in below:
            clips += _from_folders(child, root, depth - 1)
    return clips


def _named(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    found = {p.name.lower(): p for p in folders if pictures_in(p)}
    return next((found[name] for name in names if name in found), None)


def _folder_clip(name: str, thermal: Path, rgb: Path | None) -> Clip:
    return Clip(name, thermal, rgb, frames=len(pictures_in(thermal)))


def _videos(folder: Path, prefix: str) -> list[Clip]:
    videos = sorted((p for p in folder.iterdir() if p.suffix.lower() in VIDEOS), key=natural_key)
    colors = {_without(_RGB_WORD, p): p for p in videos if _RGB_WORD.search(_words(p))}
    clips = []
    for path in videos:
        if path in colors.values():
            continue
        key = _without(_THERMAL_WORD, path)
        rgb = colors.get(key) if _THERMAL_WORD.search(_words(path)) else None
        clips.append(Clip(prefix + (key or path.stem), path, rgb))
    return clips


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")


def _without(word: re.Pattern[str], path: Path) -> str:
    """What two videos of one clip have in common: the name without the camera's word."""
    return "_".join(word.sub(" ", _words(path), count=1).split()).strip("-_ ")
