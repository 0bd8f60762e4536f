"""The data pack's manifests: which pictures there are, in which split, on whose terms.

A training set never holds a validation item, nor another picture of a scene that validation shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDERS = ("rgbt_pairs", "thermal_sr", "thermal_boxes", "thermal_video", "thermal16")
SPLITS = ("train", "val")
LICENCES = ("mit", "cc-by", "cc0", "apache", "gpl", "agpl", "none-stated")
_PAIR_SETS = ("msrs", "road", "m3svd", "pbvsg")
_VIDEO_SUFFIX = ".mp4"
# These name a collection of many scenes, which the pack splits by blocks of file numbers.
_COLLECTIONS = ("msrs_day", "msrs_night", "flir_adas_drive")


class ManifestError(ValueError):
    """A manifest cannot be used; the message names the file, the line and the reason."""


@dataclass(frozen=True)
class Item:
    """A picture or a clip.

    Attributes:
        id: unique within the pack.
        dataset: short name of its source: msrs, road, m3svd, pbvsg, tisr, hituav, m3svd_lossless, m3svd_mp4,
            drone_ir, fieldscale, lepton.
        split: "train" or "val".
        thermal: a picture; for clips a folder of pictures or a video file.
        rgb: the registered RGB of the same kind; None if there is none.
        frames: 1 for a picture.
        bits: 8 or 16 per thermal pixel.
        scene: what must not be split between training and validation.
        source: repository and commit.
        licence: as the manifest states it.
        halve: its pictures carry compression artefacts and are to be halved before they serve as truth.
    """

    id: str
    dataset: str
    split: str
    thermal: Path
    rgb: Path | None
    frames: int
    bits: int
    scene: str
    source: str
    licence: str
    halve: bool = False

    @property
    def licence_class(self) -> str:
        """One of `LICENCES`."""
        return licence_class(self.licence)

    @property
    def licence_note(self) -> str:
        """What else to know about the licence; empty where the class says it all."""
        if self.licence_class == "mit" and "M3SVD" in self.licence:
            return "the copies come from a repository without a licence; the data set's own is MIT"
        return "" if self.licence_class != "none-stated" else self.licence


def licence_class(licence: str) -> str:
    """Sort the words of a manifest into one of `LICENCES`."""
    text = licence.strip().lower()
    if not text or text.startswith(("not stated", "none stated")):
        return "none-stated"
    for pattern, name in (
        (r"affero|\bagpl", "agpl"),
        (r"general public licen|\bgpl", "gpl"),
        (r"\bcc[- ]?0\b", "cc0"),
        (r"\bcc[- ]by[- ]\d", "cc-by"),
        (r"\bapache\b", "apache"),
        (r"\bmit\b", "mit"),
    ):
        if re.search(pattern, text):
            return name
    return "none-stated"


def find_pack(start: Path | None = None) -> Path | None:
    """The data pack beside the checkout (shared/data of a parent of `start`), or None."""
    for parent in (start or Path(__file__)).resolve().parents:
        candidate = parent / "shared" / "data"
        if (candidate / "rgbt_pairs" / "manifest.jsonl").is_file():
            return candidate
    return None


def read_pack(pack: Path) -> list[Item]:
    """Every item of every manifest of a pack, both splits.

    Raises:
        ManifestError: no manifest there, a line that is not understood, or an item given twice.
    """
    items: list[Item] = []
    for folder in FOLDERS:
        path = pack / folder / "manifest.jsonl"
        if path.is_file():
            items += _read_manifest(path, pack, folder)
    if not items:
        raise ManifestError(f"{pack}: no manifest.jsonl in any of {', '.join(FOLDERS)}")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ManifestError(f"{pack}: item {item.id} is listed twice")
        seen.add(item.id)
    return items


def select(
    items: Collection[Item],
    split: str,
    *,
    datasets: Collection[str] = (),
    licences: Collection[str] = (),
) -> list[Item]:
    """Items of a split, of some data sets and licence classes (empty: all).

    For "train", whatever shows a scene of any validation item is left out too: the manifests split each set
    on its own, and two of them number the same scenes.

    Raises:
        ValueError: unknown split, data set or licence class.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    for name, known, what in (
        (datasets, {item.dataset for item in items}, "data set"),
        (licences, set(LICENCES), "licence class"),
    ):
        unknown = sorted(set(name) - known)
        if unknown:
            raise ValueError(f"unknown {what} {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    held_out = {item.scene for item in items if item.split == "val"} - set(_COLLECTIONS)
    return [
        item
        for item in items
        if item.split == split
        and (split == "val" or item.scene not in held_out)
        and (not datasets or item.dataset in datasets)
        and (not licences or item.licence_class in licences)
    ]


def _read_manifest(path: Path, pack: Path, folder: str) -> Iterator[Item]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            yield _clip(entry, pack, folder) if "clip" in entry else _picture(entry, pack, folder)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
            raise ManifestError(f"{path}:{number}: {reason}") from error


def _picture(entry: dict[str, Any], pack: Path, folder: str) -> Item:
    name = str(entry["id"])
    if folder == "rgbt_pairs":
        dataset = next((s for s in _PAIR_SETS if name.startswith(s + "_")), "")
        if not dataset:
            raise ValueError(f"id {name!r} starts with none of {', '.join(_PAIR_SETS)}")
    else:
        dataset = {"thermal_sr": "tisr", "thermal_boxes": "hituav"}[folder]
    rgb = entry.get("rgb")
    return Item(
        id=name,
        dataset=dataset,
        split=_split(entry),
        thermal=pack / entry["thermal"],
        rgb=pack / rgb if rgb else None,
        frames=1,
        bits=int(entry.get("thermal_bits", entry.get("bits", 8))),
        scene=str(entry.get("scene", name)),
        source=str(entry["source"]),
        licence=str(entry["licence"]),
    )


def _clip(entry: dict[str, Any], pack: Path, folder: str) -> Item:
    name = str(entry["clip"])
    group, _, clip = name.partition("/")
    if folder == "thermal16":
        group = "lepton" if clip.startswith("lepton") else clip.partition("_")[0]
    rgb = entry.get("rgb")
    return Item(
        id=name,
        dataset=group,
        split=_split(entry),
        thermal=pack / entry["path"],
        rgb=pack / rgb if rgb else None,
        frames=int(entry["frames"]),
        bits=int(entry.get("bits", 8)),
        # The pairs of m3svd are frames of its clips.
        scene=f"m3svd_{clip}" if group.startswith("m3svd") else name,
        source=str(entry["source"]),
        licence=str(entry["licence"]),
        # MPEG-4 blocks at full size would be learnt as detail.
        halve=str(entry["path"]).endswith(_VIDEO_SUFFIX) and int(entry.get("w", 0)) >= 640,
    )


def _split(entry: dict[str, Any]) -> str:
    split = str(entry["split"])
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    return split
