"""A tiny data pack of constructed scenes, in the layout of the real one."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest


def scene(seed: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """(H, W) uint8 of blurred blobs."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.random(size[::-1]).astype(np.float32), (0, 0), 3)
    return cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def coloured(gray: np.ndarray) -> np.ndarray:
    """An RGB picture (as BGR) that shows the same shapes: R is the thermal, G its negative, B a constant."""
    return np.stack([np.full_like(gray, 40), 255 - gray, gray], axis=-1)


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pack")
    entries: dict[str, list[dict[str, object]]] = {"rgbt_pairs": [], "thermal_sr": [], "thermal_video": []}

    def write(name: str, image: np.ndarray) -> str:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
        return name

    for index, (group, split, place, licence) in enumerate(
        [
            ("msrs", "train", "msrs_day", "not stated in repo (MSRS/MFNet: research use)"),
            ("msrs", "train", "msrs_night", "not stated in repo (MSRS/MFNet: research use)"),
            ("msrs", "val", "msrs_day", "not stated in repo (MSRS/MFNet: research use)"),
            ("pbvsg", "train", "pbvs_001", "not stated in repo (challenge data, research use)"),
            ("pbvsg", "val", "pbvs_002", "not stated in repo (challenge data, research use)"),
            ("m3svd", "train", "m3svd_a", "MIT in Linfeng-Tang/M3SVD; none stated in VideoFusion"),
        ]
    ):
        gray, name = scene(index), f"{group}_{index:05d}"
        entries["rgbt_pairs"].append(
            {
                "id": name,
                "split": split,
                "source": f"{group}@0",
                "thermal": write(f"rgbt_pairs/{split}/thermal/{name}.png", gray),
                "rgb": write(f"rgbt_pairs/{split}/rgb/{name}.png", coloured(gray)),
                "scene": place,
                "w": 96,
                "h": 64,
                "thermal_bits": 8,
                "licence": licence,
            }
        )
    for number in (1, 2):  # scene 2 is in the validation split of another manifest
        entries["thermal_sr"].append(
            {
                "id": f"pbvs_{number}",
                "split": "train",
                "source": "tisr@0",
                "thermal": write(f"thermal_sr/train/pbvs_{number}.png", scene(10 + number)),
                "scene": f"pbvs_{number:03d}",
                "bits": 8,
                "licence": "not stated in repo",
            }
        )
    for split, clip in (("train", "a"), ("val", "b")):
        for frame in range(6):
            gray = np.full((64, 96), 20 * frame + 10, np.uint8)
            write(f"thermal_video/m3svd_lossless/{split}/{clip}/thermal/{frame:04d}.png", gray)
            write(f"thermal_video/m3svd_lossless/{split}/{clip}/rgb/{frame:04d}.png", coloured(gray))
        entries["thermal_video"].append(
            {
                "clip": f"m3svd_lossless/{clip}",
                "split": split,
                "path": f"thermal_video/m3svd_lossless/{split}/{clip}/thermal",
                "rgb": f"thermal_video/m3svd_lossless/{split}/{clip}/rgb",
                "frames": 6,
                "w": 96,
                "h": 64,
                "bits": 8,
                "source": "m3svd@0",
                "licence": "MIT (M3SVD repo)",
            }
        )
    counts = scene(30).astype(np.uint16) * 8 + 3000
    for frame in range(2):
        write(f"thermal16/lepton_x/{frame:04d}.png", counts + 100 * frame)
    entries["thermal16"] = [
        {
            "clip": "thermal16/lepton_x",
            "split": "train",
            "path": "thermal16/lepton_x/",
            "rgb": None,
            "frames": 2,
            "w": 96,
            "h": 64,
            "bits": 16,
            "source": "cptv@0",
            "licence": "GNU AFFERO GENERAL PUBLIC LICENSE",
        }
    ]
    for folder, rows in entries.items():
        (root / folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return root
