"""Embeddings of prompts, computed once by a pipeline's own text encoder, which is then let go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thermal_enhance.networks.diffusion.context import PROMPT, canonical, tag_prompt, write_tag_table


@torch.no_grad()
def encode_prompts(folder: Path, prompts: Sequence[str]) -> Tensor:
    """Embed texts.

    Args:
        folder: a diffusers pipeline with tokenizer/ and text_encoder/ (CLIP).
        prompts: n texts; what is longer than the tokenizer's length is cut off.

    Returns:
        (n, L, D) float32.

    Raises:
        ValueError: a folder is missing or cannot be read.
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    for name in ("tokenizer", "text_encoder"):
        if not (folder / name).is_dir():
            raise ValueError(f"{folder}: has no {name}/, which the prompt is embedded with")
    options: dict[str, Any] = {"local_files_only": True}
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), **options)
        encoder = CLIPTextModel.from_pretrained(str(folder / "text_encoder"), use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: tokenizer/ or text_encoder/ cannot be read: {error}") from error
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return encoder.float().eval()(tokens.input_ids)[0].float()


def make_tag_table(folder: Path, tag_sets: Iterable[Iterable[str]], path: Path, prompt: str = PROMPT) -> None:
    """Embed tag sets for `context.TagTable`; the prompt without tags is always added.

    Args:
        folder: see `encode_prompts`.
        tag_sets: those worth telling apart.
        path: safetensors file to make.
        prompt: what every text begins with.
    """
    sets = sorted({(), *(canonical(tags) for tags in tag_sets)})
    embeddings = encode_prompts(folder, [tag_prompt(tags, prompt) for tags in sets])
    write_tag_table(path, {tags: row.numpy() for tags, row in zip(sets, embeddings)}, prompt)
