"""Ordinary LoRA: which layers, which scale, and peft's file format in both directions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")

from torch import nn

from tests.networks.conftest import tiny_kl, tiny_unet
from thermal_enhance.networks.diffusion import attention, lora
from thermal_enhance.networks.diffusion.pretrained import KlAutoencoder


def stir(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)


@torch.no_grad()
def predict(unet: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    latent = torch.randn(1, 4, 16, 8, generator=generator)
    return unet(latent, 199, encoder_hidden_states=torch.randn(1, 3, 16, generator=generator)).sample


def test_layers_scale_and_initialisation_are_the_releases() -> None:
    unet = tiny_unet()
    lora.inject(unet, 16, lora.UNET_TARGETS)
    layers = {n: m for n, m in unet.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert "conv_out" in layers and "down_blocks.0.attentions.0.proj_in" in layers
    assert "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj" in layers
    assert not any("conv_in" in name or "time_emb" in name for name in layers)
    assert {layer.scaling["default"] for layer in layers.values()} == {0.5}  # 8 / 16
    wide = layers["down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2"]
    assert float(wide.lora_A["default"].weight.detach().std()) == pytest.approx(1 / 16, rel=0.1)
    assert not any(bool(layer.lora_B["default"].weight.any()) for layer in layers.values())
    assert all(p.requires_grad == ("lora_" in n) for n, p in unet.named_parameters())


def test_decoder_alone_takes_the_autoencoders() -> None:
    wrapped = KlAutoencoder(tiny_kl())
    lora.inject(wrapped.vae, 4, wrapped.lora_targets())
    layers = {n: m for n, m in wrapped.vae.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert all(name.startswith("decoder.") for name in layers)
    for name in ("conv_in", "conv_out", "mid_block.attentions.0.to_out.0", "up_blocks.2.resnets.0.conv1"):
        assert f"decoder.{name}" in layers
    assert "decoder.up_blocks.1.resnets.0.conv_shortcut" not in layers  # equal widths have none
    assert "decoder.up_blocks.2.resnets.0.conv_shortcut" in layers
    assert {layer.scaling["default"] for layer in layers.values()} == {2.0}  # 8 / 4


def test_layers_of_a_fusion_ablation_take_none() -> None:
    unet = tiny_unet()
    attention.install(unet, "cross")
    lora.inject(unet, 2, lora.UNET_TARGETS)
    assert not any(".processor." in n for n, _ in unet.named_parameters() if "lora_" in n)


def test_saved_files_are_pefts(tmp_path: Path) -> None:
    unet = tiny_unet()
    plain = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    lora.inject(unet, 4, lora.UNET_TARGETS)
    stir(unet)
    wanted = predict(unet)
    lora.save(unet, tmp_path / "adapter")
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {lora.CONFIG_FILE, lora.WEIGHTS_FILE}
    written = json.loads((tmp_path / "adapter" / lora.CONFIG_FILE).read_text())
    assert (written["r"], written["lora_alpha"], written["peft_type"]) == (4, 8, "LORA")

    stock = tiny_unet()
    stock.load_state_dict(plain)
    theirs = peft.PeftModel.from_pretrained(stock, str(tmp_path / "adapter")).eval()
    assert torch.allclose(predict(theirs), wanted, atol=1e-5)

    theirs.save_pretrained(str(tmp_path / "theirs"))
    ours = tiny_unet()
    ours.load_state_dict(plain)
    lora.inject(ours, 2, lora.UNET_TARGETS)  # of another rank, replaced
    lora.load(ours, tmp_path / "theirs")
    assert torch.allclose(predict(ours), wanted, atol=1e-5)
    assert any(p.requires_grad for p in ours.parameters())

    lora.merge(ours)
    assert torch.allclose(predict(ours), wanted, atol=1e-4)
    assert set(ours.state_dict()) == set(plain)


def test_removing_brings_the_stock_network_back() -> None:
    unet = tiny_unet()
    wanted = predict(unet)
    lora.inject(unet, 2, lora.UNET_TARGETS)
    stir(unet)
    lora.remove(unet)
    assert torch.equal(predict(unet), wanted)
    lora.inject(unet, 2, lora.UNET_TARGETS)  # nothing of the first is left
    assert torch.equal(predict(unet), wanted)


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    unet = tiny_unet()
    with pytest.raises(ValueError, match="has no LoRA to save"):
        lora.save(unet, tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"has no adapter_config\.json"):
        lora.load(unet, tmp_path)
    lora.inject(unet, 2, ["to_q"])
    with pytest.raises(ValueError, match="has LoRA already"):
        lora.inject(unet, 2, ["to_q"])
    lora.save(unet, tmp_path / "adapter")
    wider = tiny_unet(block_out_channels=(16, 16, 32, 32), attention_head_dim=(2, 2, 4, 4))
    with pytest.raises(ValueError, match="adapter: does not fit this UNet2DConditionModel"):
        lora.load(wider, tmp_path / "adapter")
    assert not lora.has_lora(wider)
