"""Published weights: a tiny pipeline in diffusers' format, from disk through training to ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from torch import nn

from thermal_enhance.networks.cross_modal import adapter, exporting, provider
from thermal_enhance.networks.cross_modal.configuration import CrossModalConfig
from thermal_enhance.networks.cross_modal.model import CrossModalModel
from thermal_enhance.networks.cross_modal.provider import load_pretrained
from thermal_enhance.networks.cross_modal.sizes import sd_turbo
from thermal_enhance.networks.diffusion.context import TagTable
from thermal_enhance.networks.diffusion.task_lora import TaskLoraLinear, identity
from thermal_enhance.networks.diffusion.text import encode_prompts, make_tag_table

SHAPE = replace(sd_turbo(), task_rank=2, query_chunk=100)


def load(pipeline: Path, autoencoder: str = "vae", **options: Any) -> CrossModalModel:
    shape = options.pop("shape", SHAPE)
    vae = None if autoencoder == "vae" else pipeline / autoencoder
    return load_pretrained(pipeline, shape, vae, unet_rank=4, vae_rank=2, **options).eval()


def views() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    thermal, rgb, truth = (torch.rand(1, 3, 64, 128, generator=generator) * 2 - 1 for _ in range(3))
    return thermal, rgb, truth[:, :1]


def train(model: CrossModalModel, steps: int = 2) -> list[float]:
    """A few steps on one picture; two, because B and the skips are zero at the first."""
    thermal, rgb, truth = views()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = (model(thermal, rgb) - truth).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def trained_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def test_untrained_adapter_is_the_stock_pipeline(pipeline: Path) -> None:
    """The whole model with one view, against the parts of diffusers put together by hand."""
    model = load(pipeline)
    thermal = views()[0]
    vae = diffusers.AutoencoderKL.from_pretrained(pipeline / "vae")
    unet = diffusers.UNet2DConditionModel.from_pretrained(pipeline / "unet")
    scheduler = diffusers.DDPMScheduler.from_pretrained(pipeline / "scheduler")
    words = encode_prompts(pipeline, ["remove degradation"])
    grey = thermal[:, :1].expand(-1, 3, -1, -1)
    latent = vae.encode(grey).latent_dist.mode() * vae.config.scaling_factor
    noise = unet(latent, 199, encoder_hidden_states=words).sample
    clean = scheduler.step(noise, 199, latent).pred_original_sample
    wanted = vae.decode(clean / vae.config.scaling_factor).sample.mean(dim=1, keepdim=True)
    assert torch.allclose(model(thermal), wanted, atol=1e-4)


def test_configuration_follows_the_unet(pipeline: Path) -> None:
    found = load(pipeline).config
    assert found.denoiser.channels == (16, 32, 32, 32)
    assert found.denoiser.attention == (True, True, True, False)
    assert (found.denoiser.layers, found.denoiser.head_dim, found.denoiser.groups) == (1, 8, 8)
    assert (found.denoiser.context_dim, found.denoiser.context_length) == (16, 12)
    assert found.denoiser.multiple == 64
    assert CrossModalConfig.from_dict(found.to_dict()) == found


def test_trained_are_lora_and_skips_alone(pipeline: Path) -> None:
    model = load(pipeline)
    names = trained_names(model)
    assert names
    for name in names:
        assert "lora_A" in name or "lora_B" in name or name.startswith("skips."), name
        assert not name.startswith("autoencoder.vae.encoder"), name
    assert not any(name.startswith("skips.") and "lora" in name for name in names)  # METHODS trap E
    assert sum(name.startswith("skips.") for name in names) == 4
    assert model.guide_skips is None
    frozen = {n: p.clone() for n, p in model.named_parameters() if n not in names}
    losses = train(model, 4)
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


def test_whole_unet_can_be_trained(pipeline: Path, tmp_path: Path) -> None:
    model = load(pipeline, unet_trainable="full", shape=replace(SHAPE, fusion="cross"))
    names = trained_names(model)
    assert "unet.conv_in.weight" in names and any(".processor." in name for name in names)
    assert not any("lora_down" in name or name.startswith("autoencoder.vae.encoder") for name in names)
    train(model)
    adapter.save_adapter(model, tmp_path / "full")
    assert {p.name for p in (tmp_path / "full").iterdir()} == {"vae", "unet.safetensors", "skips.safetensors"}
    stock = diffusers.UNet2DConditionModel.from_pretrained(pipeline / "unet")
    stock.load_state_dict(load_file(tmp_path / "full" / "unet.safetensors"))  # by the stock names
    again = load(pipeline, adapter=tmp_path / "full", shape=replace(SHAPE, fusion="cross"))
    assert trained_names(again) == names
    with torch.no_grad():
        thermal, rgb, _ = views()
        assert torch.equal(again(thermal, rgb), model.eval()(thermal, rgb))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("autoencoder", "dynamo"), [("vae", False), ("taesd", True)])
def test_from_disk_to_onnx_runtime(
    pipeline: Path, shallow_pipeline: Path, tmp_path: Path, autoencoder: str, dynamo: bool
) -> None:
    """Load, train, save and load the adapter, merge, export, run.

    By torch's old exporter, and, since that one takes half a minute over four levels, over two levels by the
    one that `thermal-enhance export` uses.
    """
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pipeline = shallow_pipeline if dynamo else pipeline
    model = load(pipeline, autoencoder)
    thermal, rgb, _ = views()
    with torch.no_grad():
        before = model(thermal, rgb)
    train(model)
    with torch.no_grad():
        wanted = model(thermal, rgb)
    assert not torch.allclose(wanted, before, atol=1e-4)

    adapter.save_adapter(model, tmp_path / "adapter")
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {"unet", "vae", "skips.safetensors"}
    again = load(pipeline, autoencoder, adapter=tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(again(thermal, rgb), wanted)
        assert trained_names(again) == trained_names(model)
        adapter.merge_adapter(again)
        assert not any("lora_A" in name for name, _ in again.named_parameters())
        assert torch.allclose(again(thermal, rgb), wanted, atol=1e-4)

        for module in again.modules():  # the task is to be an input that matters
            if isinstance(module, TaskLoraLinear):
                nn.init.normal_(module.lora_up, std=0.1)
        task = identity(2) + 0.3 * torch.randn(3, 2, 2)
        reference = again(thermal, rgb, task)
        assert not torch.allclose(reference, wanted, atol=1e-4)
        path = tmp_path / "graph.onnx"
        inputs = {"thermal": thermal, "rgb": rgb, "task": task}
        torch.onnx.export(
            exporting._TwoView(again).eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            opset_version=18,
            dynamo=dynamo,
            **({"optimize": False, "verbose": False} if dynamo else {}),
        )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    assert np.abs(made - reference.numpy()).max() < 1e-3


def test_training_task_keeps_the_adapter_and_export_finds_it(pipeline: Path, tmp_path: Path) -> None:
    from thermal_enhance.training.cross_modal_task import build_task
    from thermal_enhance.training.recipe import DataConfig, Recipe, SourceConfig

    values = {
        **{k: v for k, v in SHAPE.to_dict().items() if k not in ("autoencoder", "denoiser")},
        "pretrained": str(pipeline),
        "unet_rank": 4,
        "vae_rank": 2,
    }
    data = DataConfig((SourceConfig("msrs"),))
    recipe = Recipe(name="tiny", method="cross_modal", data=data, model=values, steps=1)
    task = build_task(recipe, tmp_path)
    model = task.build_model(recipe)
    assert any("lora_A" in name for name in trained_names(model))
    train(model)
    task.save_weights(model, tmp_path / ".part-best.safetensors")
    checkpoint = (tmp_path / ".part-best.safetensors").rename(tmp_path / "best.safetensors")
    assert (tmp_path / "best.adapter" / "unet" / "adapter_config.json").is_file()
    assert set(load_file(checkpoint)) == trained_names(model)  # nothing of the published weights

    thermal, rgb, _ = views()
    merged = exporting.load_model(checkpoint)
    with torch.no_grad():
        assert torch.allclose(merged(thermal, rgb), model.eval()(thermal, rgb), atol=2e-3)  # half precision
    roles = [(graph.role, graph.profile) for graph in exporting.graphs(checkpoint, [(64, 128)])]
    assert roles == [("two_view", (64, 128)), ("one_view", (64, 128))]
    tensors = load_file(checkpoint)
    tensors.pop("skips.0.weight")
    header = {
        exporting.CONFIG_KEY: json.dumps(model.config.to_dict()),
        exporting.PRETRAINED_KEY: json.dumps(asdict(provider.PretrainedConfig(str(pipeline), vae_rank=2))),
    }
    save_file(tensors, checkpoint, header)
    with pytest.raises(ValueError, match=r"best\.safetensors: its tensors are not those"):
        exporting.load_model(checkpoint)


def test_adapter_keeps_a_trained_task_lora_and_fits_its_model_alone(pipeline: Path, tmp_path: Path) -> None:
    model = load(pipeline)
    for module in model.modules():
        if isinstance(module, TaskLoraLinear):
            nn.init.normal_(module.lora_up, std=0.1)
    adapter.save_adapter(model, tmp_path / "a")
    adapter.save_adapter(model, tmp_path / "a")  # in place of the first
    thermal, rgb, _ = views()
    again = load(pipeline, adapter=tmp_path / "a")
    with torch.no_grad():
        assert torch.equal(again(thermal, rgb), model(thermal, rgb))
    with pytest.raises(ValueError, match=r"skips\.safetensors: does not fit"):
        load(pipeline, adapter=tmp_path / "a", shape=replace(SHAPE, task_rank=3))
    with pytest.raises(ValueError, match="does not fit this AutoencoderTiny"):
        load(pipeline, "taesd", adapter=tmp_path / "a")
    with pytest.raises(ValueError, match=r"it has no skips\.safetensors"):
        load(pipeline, adapter=tmp_path)
    adapter.merge_adapter(model)
    with pytest.raises(ValueError, match="no adapter to save"):
        adapter.save_adapter(model, tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(ValueError, match="edge and base train all their weights"):
        adapter.add_adapter(CrossModalModel(CrossModalConfig()))


def test_context_can_stand_in_for_the_text_encoder(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "no text"
    shutil.copytree(pipeline, folder, ignore=shutil.ignore_patterns("text_encoder", "tokenizer"))
    with pytest.raises(ValueError, match="has no tokenizer/, which the prompt is embedded with"):
        load(folder)
    words = torch.randn(5, 16)
    model = load(folder, context=words)
    assert torch.equal(model.context, words) and not model.context.requires_grad
    with pytest.raises(ValueError, match=r"context must be \(length, 16\)"):
        load(folder, context=torch.randn(5, 8))


def test_tag_table_holds_what_the_text_encoder_says(pipeline: Path, tmp_path: Path) -> None:
    path = tmp_path / "tags.safetensors"
    make_tag_table(pipeline, [["road", "car"], ["night"]], path)
    table = TagTable(path)
    wanted = encode_prompts(pipeline, ["remove degradation", "remove degradation, car, road"])
    assert not torch.allclose(wanted[0], wanted[1], atol=1e-2)
    assert np.allclose(table([]), wanted[0].numpy(), atol=2e-3)
    assert np.allclose(table(["car", "road"]), wanted[1].numpy(), atol=2e-3)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_errors_name_what_is_wrong(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sd"
    shutil.copytree(pipeline, folder)
    with pytest.raises(ValueError, match=r"model\.residual must be false"):
        load(folder, shape=replace(SHAPE, residual=True))
    with pytest.raises(ValueError, match="unet_trainable must be one of lora, full, not 'some'"):
        load(folder, unet_trainable="some")
    with pytest.raises(ValueError, match="no such folder"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"unet: holds a UNet2DConditionModel; needed: AutoencoderKL or"):
        load_pretrained(folder, SHAPE, folder / "unet")
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    with pytest.raises(ValueError, match="prediction_type must be 'epsilon', not 'v_prediction'"):
        load(folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match="vae: cannot be read"):
        load(folder)
    edit(folder / "vae" / "config.json", _class_name="VQModel")
    with pytest.raises(ValueError, match="vae: holds a VQModel; needed: AutoencoderKL or AutoencoderTiny"):
        load(folder)
    shutil.rmtree(folder / "vae")
    with pytest.raises(ValueError, match=r"has no vae/config\.json"):
        load(folder)
    other = diffusers.AutoencoderTiny(latent_channels=8)
    other.save_pretrained(folder / "vae")
    with pytest.raises(ValueError, match="takes 4 channels and gives 4; the autoencoder's latent has 8"):
        load(folder)
    shutil.rmtree(folder / "unet")
    with pytest.raises(ValueError, match=r"has no unet/config\.json"):
        load(folder)


def test_hub_ids_are_downloaded_once_named(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hub: what would be asked of it, and what becomes of its errors."""
    import huggingface_hub

    asked = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        if name == "owner/missing":
            raise OSError("not found")
        return str(pipeline)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert provider.locate("owner/name") == pipeline
    name, options = asked[0]
    assert name == "owner/name" and "*.safetensors" in options["allow_patterns"]
    assert not any(pattern.endswith(("bin", "ckpt", "pt")) for pattern in options["allow_patterns"])
    with pytest.raises(ValueError, match=r"owner/missing: neither a folder here nor .* not found"):
        provider.locate("owner/missing")
    for wrong in ("name", "./owner/name", "a/b/c"):
        with pytest.raises(ValueError, match="no such folder"):
            provider.locate(wrong)


@pytest.mark.parametrize("autoencoder", provider.AUTOENCODERS)
def test_a_random_model_of_the_full_size_can_be_made(autoencoder: str) -> None:
    with torch.device("meta"):
        model = provider.random_model(sd_turbo(), autoencoder)
    size = sum(p.numel() for p in model.parameters())
    assert size == pytest.approx(955e6 if autoencoder == "AutoencoderKL" else 874e6, rel=0.01)
