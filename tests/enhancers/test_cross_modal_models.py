"""Real graphs: a tiny exported model, and the one that ships, through ladder and command line."""

from __future__ import annotations

import math
import shutil

import cv2
import numpy as np
import pytest

from tests.enhancers.scenes import error, pair, request
from thermal_enhance.enhancers import media
from thermal_enhance.enhancers.base import EnhanceRequest
from thermal_enhance.enhancers.cross_modal import CHANNELS, CrossModalEnhancer, CrossModalEnhancerConfig
from thermal_enhance.enhancers.folder import main
from thermal_enhance.enhancers.ladder import LadderConfig
from thermal_enhance.enhancers.learned import LearnedConfig, ModelUnavailableError
from thermal_enhance.enhancers.registry import build_ladder
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame, Units
from thermal_enhance.runtime.store import FOLDERS_VARIABLE, ModelFileError, ModelStore

SHIPPED = "cross_modal-edge"

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of models with one in it, "tiny": 64x64 and 128x96, both roles, exported here."""
    torch = pytest.importorskip("torch", reason="needs the train extra (make test)")
    pytest.importorskip("onnxscript", reason="needs the train extra (make test)")
    from thermal_enhance.runtime.export import GraphExport, export_model
    from thermal_enhance.runtime.manifest import ModelManifest

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.thermal = torch.nn.Conv2d(3, 4, 3, padding=1)
            self.color = torch.nn.Conv2d(3, 4, 3, padding=1)
            self.out = torch.nn.Conv2d(4, 1, 3, padding=1)

        def forward(self, thermal, rgb=None, task=None):
            features = self.thermal(thermal)
            if rgb is not None:
                features = features + self.color(rgb)
            if task is not None:
                features = features * task[0].sum() / 4
            return thermal[:, :1] + 0.05 * self.out(torch.tanh(features))

    class Alone(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, thermal, task):
            return self.network(thermal, None, task)

    torch.manual_seed(0)
    network = Network().eval()
    graphs = []
    for width, height in ((64, 64), (128, 96)):
        views = {"thermal": torch.rand(1, 3, height, width), "rgb": torch.rand(1, 3, height, width)}
        task = {"task": torch.eye(4).repeat(3, 1, 1)}
        graphs += [
            GraphExport("two_view", (width, height), network, {**views, **task}, ["enhanced"]),
            GraphExport(
                "one_view",
                (width, height),
                Alone(network),
                {"thermal": views["thermal"], **task},
                ["enhanced"],
            ),
        ]
    manifest = ModelManifest(
        name="tiny",
        method="cross_modal",
        size="edge",
        version="1",
        scales=(4, 8),
        licence="CC0-1.0",
        parameters={"stride": 32, "thermal_channels": list(CHANNELS), "network": {"task_rank": 4}},
    )
    folder = tmp_path_factory.mktemp("cross_modal_models")
    export_model(graphs, network.state_dict(), folder / "tiny", manifest)
    return folder


def shipped():
    """(store, name) of the shipped model; skips where it is not, or not in the version that runs here."""
    store = ModelStore()
    try:
        CrossModalEnhancer(CrossModalEnhancerConfig(model=SHIPPED), store)
    except ModelUnavailableError as error:
        pytest.skip(str(error))
    return store, SHIPPED


@pytest.fixture(params=["tiny", SHIPPED])
def model(request):
    """(store, name): the exported one, and the shipped one where it is."""
    if request.param == "tiny":
        return ModelStore([request.getfixturevalue("tiny")]), "tiny"
    return shipped()


def enhancer(model, **more):
    store, name = model
    return CrossModalEnhancer(
        CrossModalEnhancerConfig(model=name, per_frame_alignment=True, threads=1, **more), store
    )


def test_with_and_without_rgb(model):
    truth, color = pair(2, 192, 256)
    tier = enhancer(model)
    asked = request(truth, 8, color, dtype=np.uint8)
    guided = tier(asked)
    dark = tier(EnhanceRequest(asked.thermal, ColorFrame(np.zeros_like(color.data)), 8, 0.0))
    alone = tier(request(truth, 8, dtype=np.uint8))
    assert np.array_equal(dark.thermal.data, alone.thermal.data)
    assert not dark.rgb_used and math.isnan(alone.rgb_trust)
    low = asked.thermal.data.astype(np.float32)
    for result in (guided, alone):
        assert result.thermal.size == (256, 192)
        gap = area_down(result.thermal.data, 8) - low
        assert np.sqrt(np.mean(gap**2)) <= 0.5 and result.consistency_residual <= 0.5
        assert error(result, truth) < 40
    assert guided.rgb_used == (guided.rgb_trust >= 0.35)


@pytest.mark.parametrize("size", [(33, 21), (5, 3)])
def test_odd_sizes_in_tiles_and_padded(model, size):
    width, height = size
    data = np.random.default_rng(0).integers(90, 160, (height, width)).astype(np.uint8)
    result = enhancer(model)(EnhanceRequest(ThermalFrame(data, Units.AGC8), scale=8))
    assert result.thermal.size == (8 * width, 8 * height)
    assert result.consistency_residual <= 0.5


@pytest.mark.parametrize("with_rgb", [True, False])
def test_tiles_of_the_shipped_model_leave_no_seam(with_rgb):
    """A seam is a step along a tile's border, in what tiles and one large run differ by.

    The two do differ pixel by pixel, by several grey levels at single strong edges (8 in this picture): the
    network's attention sees the whole picture in one and a tile in the other, which no blending can undo.
    """
    model = shipped()
    truth, color = pair(2, 320, 384)
    asked = request(truth, 4, color if with_rgb else None)
    there = enhancer(model)._profiles
    if (256, 256) not in there or len(there) < 2:
        pytest.skip("no 256x256 graphs, or no larger ones")
    made = {}
    for name, profile in (("whole", max(there, key=lambda size: size[0] * size[1])), ("tiles", (256, 256))):
        tier = enhancer(model)
        tier._profiles = [profile]
        made[name] = tier(asked).thermal.data
    plan = tier._plan(asked)
    assert plan.tiles > 1
    gap = made["tiles"] - made["whole"]
    steps = []
    for axis, tiles in ((1, plan.x), (0, plan.y)):
        borders = {edge for start in tiles.starts for edge in (start, start + tiles.tile)}
        lines = np.diff(gap, axis=axis).mean(axis=1 - axis)
        steps += [abs(float(lines[edge - 1])) for edge in borders if 0 < edge < tiles.length]
    assert steps and max(steps) < 0.25, "grey levels"
    assert np.sqrt(np.mean(gap**2)) < 0.5


def test_a_damaged_model_is_told_and_the_frames_go_on(tiny, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "models"
    shutil.copytree(tiny, folder)
    weights = folder / "tiny" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 0xFF
    weights.write_bytes(bytes(content))
    store = ModelStore([folder])
    asked = EnhanceRequest(ThermalFrame(np.full((6, 8), 100, np.uint8), Units.AGC8), scale=4)
    with pytest.raises(ModelFileError, match=r"weights\.safetensors"):
        enhancer((store, "tiny"))(asked)
    ladder = build_ladder("cross_modal", ladder=LadderConfig(deadline_s=20.0), store=store)
    for _ in range(2000):
        frame = ladder(asked)
        if frame.tier_reason != "loading":
            break
    assert frame.tier == "classical" and frame.tier_reason.startswith("disabled: ModelFileError")
    ladder.close()
    monkeypatch.setenv(FOLDERS_VARIABLE, str(folder))
    cv2.imwrite(str(tmp_path / "a.png"), asked.thermal.data)
    options = ["--mode", "cross_modal", "--model", "tiny", "--thermal", str(tmp_path / "a.png")]
    assert main([*options, "--out", str(tmp_path / "out")]) == 2
    assert "weights.safetensors" in capsys.readouterr().err


def test_the_ladder_takes_the_model_up_when_it_is_loaded(tiny):
    asked = EnhanceRequest(ThermalFrame(np.full((6, 8), 100, np.uint8), Units.AGC8), scale=4)
    ladder = build_ladder(
        "cross_modal",
        ladder=LadderConfig(deadline_s=20.0),
        learned=LearnedConfig(threads=1),
        store=ModelStore([tiny]),
    )
    seen = []
    for _ in range(20000):
        seen.append(ladder(asked).tier)
        if seen[-1] == "cross_modal":
            break
    assert seen[0] == "classical" and seen[-1] == "cross_modal"
    assert "onnxruntime" in ladder.status().tiers[0].detail
    ladder.close()


def test_the_command_line(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(FOLDERS_VARIABLE, str(tiny))
    thermal, rgb, out = tmp_path / "thermal", tmp_path / "rgb", tmp_path / "out"
    thermal.mkdir(), rgb.mkdir()
    for index in range(3):
        truth, color = pair(index, 160, 192)
        low = area_down(truth, 8)
        data = np.rint(low * 100).astype(np.uint16) if index == 1 else np.rint(low).astype(np.uint8)
        cv2.imwrite(str(thermal / f"{index}.png"), data)
        if index != 2:
            cv2.imwrite(str(rgb / f"{index}.jpg"), color.data[:, :, ::-1])
    base = ["--mode", "cross_modal", "--model", "tiny", "--thermal", str(thermal)]
    assert main([*base, "--rgb", str(rgb), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 frames written" in said and "1 without RGB" in said
    for index, dtype in enumerate((np.uint8, np.uint16, np.uint8)):
        made = media.read_thermal(out / f"{index}.png")
        assert made.shape == (160, 192) and made.dtype == dtype
    assert main([*base, "--out", str(tmp_path / "alone")]) == 0
    assert np.array_equal(media.read_thermal(out / "2.png"), media.read_thermal(tmp_path / "alone" / "2.png"))
    capsys.readouterr()
    for options, says in (
        (["--scale", "2"], "scale 2 is not one of model tiny: it makes 4 and 8"),
        (["--model", "magic"], "known for cross_modal:"),
        (["--device", "tpu"], "device must be"),
        (["--task", "people"], "--task"),
    ):
        assert main([*base, "--out", str(tmp_path / "none"), *options]) == 2
        assert says in capsys.readouterr().err
