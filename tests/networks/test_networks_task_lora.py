"""Task LoRA: C as an input, its identity, merging, and living with an ordinary LoRA of peft's."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch import nn

from tests.networks.conftest import tiny_unet
from thermal_enhance.networks.diffusion import attention, lora
from thermal_enhance.networks.diffusion.task_lora import (
    GROUPS,
    TaskLoraLinear,
    TaskMatrices,
    add_task_lora,
    identity,
    replace_module,
    without_task_lora,
)
from thermal_enhance.networks.diffusion.views import denoise

RANK = 4


def layer(matrices: TaskMatrices, group: int = 0) -> TaskLoraLinear:
    made = TaskLoraLinear(nn.Linear(6, 5), RANK, 2.0, group, matrices)
    nn.init.normal_(made.lora_up)
    return made


def dressed_unet() -> tuple[nn.Module, TaskMatrices]:
    unet = tiny_unet()
    attention.install(unet, "csm")
    matrices = add_task_lora(unet, RANK, 1.0)
    for module in unet.modules():
        if isinstance(module, TaskLoraLinear):
            nn.init.normal_(module.lora_up, std=0.1)
    return unet, matrices


def run(unet: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(2, 4, 8, 16, generator=generator)
    context = torch.randn(2, 5, 16, generator=generator)
    with torch.no_grad():
        return denoise(unet, latent, torch.tensor([199, 199]), context, views=2)


def test_starts_without_effect() -> None:
    base = nn.Linear(6, 5)
    x = torch.randn(3, 6)
    assert torch.equal(TaskLoraLinear(base, RANK, 2.0, 0, TaskMatrices())(x), base(x))


def test_is_the_papers_formula() -> None:
    """y = W x + s * up(C^T down(x)), METHODS 3.4, for one vector."""
    matrices = TaskMatrices()
    network = layer(matrices, group=1)
    matrices.value = torch.randn(3, RANK, RANK)
    x = torch.randn(6)
    wanted = network.base(x) + 2.0 * network.lora_up @ (matrices.value[1].T @ (network.lora_down @ x))
    assert torch.allclose(network(x), wanted, atol=1e-6)


@pytest.mark.parametrize("matrix", [None, torch.randn(RANK, RANK)])
def test_merged_equals_dynamic(matrix: torch.Tensor | None) -> None:
    matrices = TaskMatrices()
    network = layer(matrices)
    matrices.value = None if matrix is None else matrix.repeat(3, 1, 1)
    x = torch.randn(10, 6)
    merged = nn.functional.linear(x, network.merged(matrix), network.base.bias)
    assert torch.allclose(merged, network(x), atol=1e-4)


def test_whole_unet_merged_equals_dynamic() -> None:
    unet, matrices = dressed_unet()
    matrices.value = torch.randn(len(GROUPS), RANK, RANK)
    wanted = run(unet)
    for name, module in list(unet.named_modules()):
        if isinstance(module, TaskLoraLinear):
            with torch.no_grad():
                module.base.weight.copy_(module.merged(matrices.value[module.group]))
            replace_module(unet, name, module.base)
    assert torch.allclose(run(unet), wanted, atol=1e-4)


def test_identity_is_no_task_and_switching_leaves_no_trace() -> None:
    unet, matrices = dressed_unet()
    plain = run(unet)
    matrices.value = identity(RANK)
    assert torch.equal(run(unet), plain)
    one, other = torch.randn(2, len(GROUPS), RANK, RANK)
    results = []
    for value in (one, other, one):
        matrices.value = value
        results.append(run(unet))
    assert torch.equal(results[0], results[2])
    assert not torch.allclose(results[0], results[1], atol=1e-4)


def test_every_group_has_its_own_matrix() -> None:
    unet, matrices = dressed_unet()
    plain = run(unet)
    for group in range(len(GROUPS)):
        matrices.value = identity(RANK)
        matrices.value[group] = 0.0
        assert not torch.equal(run(unet), plain), GROUPS[group]


def test_taken_off_the_network_is_the_stock_one() -> None:
    stock = set(tiny_unet().state_dict())
    unet, _ = dressed_unet()
    before = set(unet.state_dict())
    with without_task_lora(unet):
        assert set(unet.state_dict()) == stock
    assert set(unet.state_dict()) == before != stock


def test_lives_with_an_ordinary_lora() -> None:
    pytest.importorskip("peft")
    unet, matrices = dressed_unet()
    matrices.value = torch.randn(len(GROUPS), RANK, RANK)
    wanted = run(unet)
    lora.inject(unet, 2, lora.UNET_TARGETS)
    assert torch.allclose(run(unet), wanted, atol=1e-5)  # B is zero
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    both = run(unet)
    assert not torch.allclose(both, wanted, atol=1e-4)
    worn = next(m for m in unet.modules() if isinstance(m, TaskLoraLinear))
    with pytest.raises(ValueError, match="merge the ordinary LoRA first"):
        worn.merged()
    attention.install(unet, "csm")  # reads attn.to_q.in_features through both wrappers
    lora.merge(unet)
    assert torch.allclose(run(unet), both, atol=1e-4)
    assert isinstance(worn.base, nn.Linear) and not lora.has_lora(unet)
