"""Tiny random networks in the published shapes, and one pipeline of them on disk, as diffusers writes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

WORDS = ("remove", "degradation", "car", "road", "night")


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tiny_unet(**changes: object) -> diffusers.UNet2DConditionModel:
    """Four levels like Stable Diffusion 2.1: attention at the three finest, linear projections."""
    shape = {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32, 32, 32),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 1,
        "attention_head_dim": (2, 4, 4, 4),
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
        "use_linear_projection": True,
    }
    return diffusers.UNet2DConditionModel(**{**shape, **changes}).eval()


def tiny_kl() -> diffusers.AutoencoderKL:
    """Widths differ by level as in Stable Diffusion's."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()


def tiny_taesd() -> diffusers.AutoencoderTiny:
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1, 2, 0, 1),
        num_decoder_blocks=(1, 0, 2, 1),
    ).eval()


def write_tokenizer(folder: Path) -> None:
    """CLIP's files for a vocabulary of a few whole words."""
    letters = sorted({letter for word in WORDS for letter in word} | {","})
    merges: list[str] = []
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merge = f"{pieces[0]} {pieces[1]}"
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            if merge not in merges:
                merges.append(merge)
                tokens.append(pieces[0])
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 12}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the format of a Stable Diffusion 2.1 pipeline; taesd/ is an autoencoder of its own."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("pipelines") / "tiny-sd"
    tiny_unet().save_pretrained(folder / "unet")
    tiny_kl().save_pretrained(folder / "vae")
    tiny_taesd().save_pretrained(folder / "taesd")
    diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    ).save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer")
    config = transformers.CLIPTextConfig(
        vocab_size=len(json.loads((folder / "tokenizer" / "vocab.json").read_text())),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=0,
        eos_token_id=1,
    )
    transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="session")
def shallow_pipeline(pipeline: Path) -> Path:
    """The same with a UNet of two levels, which is exported in half the time."""
    folder = pipeline.with_name("shallow-sd")
    shutil.copytree(pipeline, folder)
    shutil.rmtree(folder / "unet")
    torch.manual_seed(2)
    tiny_unet(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4),
    ).save_pretrained(folder / "unet")
    return folder
