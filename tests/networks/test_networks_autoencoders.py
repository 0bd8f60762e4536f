"""Our own autoencoder and the wrapped published ones, which must stay what they are."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from torch import nn

from tests.networks.conftest import tiny_kl, tiny_taesd
from thermal_enhance.networks.diffusion.autoencoder import (
    PixelAutoencoder,
    PixelAutoencoderConfig,
)
from thermal_enhance.networks.diffusion.pretrained import KlAutoencoder, TinyAutoencoder

SIZE = (32, 48)


def every_kind() -> list[nn.Module]:
    return [
        PixelAutoencoder(PixelAutoencoderConfig(encoder_blocks=(1, 1, 1, 1))),
        KlAutoencoder(tiny_kl()),
        TinyAutoencoder(tiny_taesd()),
    ]


def zero_skips(autoencoder: nn.Module, batch: int) -> list[torch.Tensor]:
    return [
        torch.zeros(batch, width, SIZE[0] >> level, SIZE[1] >> level)
        for level, width in enumerate(autoencoder.skip_channels)
    ]


@pytest.mark.parametrize("index", range(3))
@torch.no_grad()
def test_taps_and_skips_have_the_promised_shapes(index: int) -> None:
    autoencoder = every_kind()[index]
    latent, taps = autoencoder.encode(torch.rand(2, 3, *SIZE) * 2 - 1)
    assert latent.shape == (2, autoencoder.latent_channels, SIZE[0] // 8, SIZE[1] // 8)
    for level, (tap, width) in enumerate(zip(taps, autoencoder.tap_channels, strict=True)):
        assert tap.shape == (2, width, SIZE[0] >> level, SIZE[1] >> level)
    picture = autoencoder.decode(latent, [None] * 4)
    assert picture.shape == (2, 1 if index == 0 else 3, *SIZE)
    skips = zero_skips(autoencoder, 2)
    assert torch.equal(autoencoder.decode(latent, skips), picture)
    for level in range(4):  # each one reaches the picture
        changed = [None if i != level else s + torch.randn_like(s) for i, s in enumerate(skips)]
        assert not torch.allclose(autoencoder.decode(latent, changed), picture, atol=1e-4)


@torch.no_grad()
def test_kl_without_skips_is_diffusers() -> None:
    vae = tiny_kl()
    picture = torch.rand(2, 3, *SIZE) * 2 - 1
    latent, _ = KlAutoencoder(vae).encode(picture)
    wanted = vae.encode(picture).latent_dist.mode() * vae.config.scaling_factor
    assert torch.allclose(latent, wanted, atol=1e-6)
    made = KlAutoencoder(vae).decode(latent, [None] * 4)
    assert torch.allclose(made, vae.decode(latent / vae.config.scaling_factor).sample, atol=1e-6)


@torch.no_grad()
def test_kl_scale_and_shift_are_the_files() -> None:
    shape = {
        "block_out_channels": (8, 8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
    }
    vae = diffusers.AutoencoderKL(
        scaling_factor=0.5, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False, **shape
    ).eval()
    picture = torch.rand(1, 3, *SIZE)
    latent, _ = KlAutoencoder(vae).encode(picture)
    assert torch.allclose(latent, (vae.encode(picture).latent_dist.mode() - 0.1) * 0.5, atol=1e-6)
    made = KlAutoencoder(vae).decode(latent, [None] * 4)
    assert torch.allclose(made, vae.decode(latent / 0.5 + 0.1).sample, atol=1e-6)


def test_kl_taps_are_the_inputs_of_the_down_blocks_and_skips_those_of_the_up_blocks() -> None:
    vae = tiny_kl()
    seen: dict[str, torch.Size] = {}
    for half in ("down", "up"):
        blocks = vae.encoder.down_blocks if half == "down" else vae.decoder.up_blocks
        for index, block in enumerate(blocks):
            key = f"{half}{index}"
            block.register_forward_pre_hook(lambda _m, x, key=key: seen.__setitem__(key, x[0].shape[1:]))
    with torch.no_grad():
        vae(torch.rand(1, 3, *SIZE))
    wrapped = KlAutoencoder(vae)
    shapes = [(SIZE[0] >> level, SIZE[1] >> level) for level in range(4)]
    for level in range(4):
        assert tuple(seen[f"down{level}"]) == (wrapped.tap_channels[level], *shapes[level])
        assert tuple(seen[f"up{3 - level}"]) == (wrapped.skip_channels[level], *shapes[level])


def test_kl_in_stable_diffusions_shape_has_the_papers_widths() -> None:
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    wrapped = KlAutoencoder(vae)
    # METHODS 1.4, finest first: 128->256, 128->512, 256->512, 512->512.
    assert wrapped.tap_channels == (128, 128, 256, 512)
    assert wrapped.skip_channels == (256, 512, 512, 512)


@torch.no_grad()
def test_taesd_without_skips_is_diffusers() -> None:
    vae = tiny_taesd()
    picture = torch.rand(2, 3, *SIZE) * 2 - 1
    latent, _ = TinyAutoencoder(vae).encode(picture)
    assert torch.allclose(latent, vae.encode(picture).latents, atol=1e-6)
    made = TinyAutoencoder(vae).decode(latent, [None] * 4)
    assert torch.allclose(made, vae.decode(latent).sample, atol=1e-6)


def test_taesd_in_its_published_shape() -> None:
    with torch.device("meta"):
        wrapped = TinyAutoencoder(diffusers.AutoencoderTiny())
    assert wrapped.tap_channels == wrapped.skip_channels == (64,) * 4
    assert len(wrapped._taps) == len(wrapped._joins) == 4


def test_other_numbers_of_levels_are_refused() -> None:
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    with pytest.raises(ValueError, match="block_out_channels must have 4 entries"):
        KlAutoencoder(vae)
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        num_encoder_blocks=(1,),
        num_decoder_blocks=(1,),
    )
    with pytest.raises(ValueError, match="must have 4 entries"):
        TinyAutoencoder(tiny)


def test_strided_convolution_is_unshuffle_and_a_point_convolution() -> None:
    """Which is what the pixel autoencoder is said to be made of."""
    strided = PixelAutoencoder(PixelAutoencoderConfig()).down[1]
    width = strided.in_channels
    point = nn.Conv2d(4 * width, strided.out_channels, 1)
    with torch.no_grad():
        point.weight.copy_(strided.weight.reshape(strided.out_channels, 4 * width, 1, 1))
        point.bias.copy_(strided.bias)
        x = torch.randn(2, width, 6, 10)
        assert torch.allclose(strided(x), point(nn.functional.pixel_unshuffle(x, 2)), atol=1e-5)
