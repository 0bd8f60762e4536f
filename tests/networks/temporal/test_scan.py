"""The selective scan: matrix products in chunks give what token after token gives."""

from __future__ import annotations

import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from thermal_enhance.networks.temporal.scan import chunk_length, selective_scan


def inputs(length: int, directions: int = 2, seed: int = 0, step: float = 0.2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).float()

    sequences, heads, width, states = 2, 3, 4, 5
    return {
        "x": normal(sequences, length, heads, width),
        "dt": torch.rand(sequences, length, heads, generator=generator) * step,
        "a": -torch.rand(directions, heads, generator=generator) * 15 - 0.5,
        "b": normal(sequences, length, directions, states),
        "c": normal(sequences, length, directions, states),
        "d": normal(heads),
        "prompt": normal(sequences, 1, 1, states),
    }


def scan(values: dict[str, Any], backend: str, chunk: int = 16) -> Any:
    order = [values[name] for name in ("x", "dt", "a", "b", "c", "d")]
    return selective_scan(*order, prompt=values["prompt"], backend=backend, chunk=chunk)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 48, 67])
def test_chunks_equal_the_loop(length: int, directions: int) -> None:
    """Short sequences, whole chunks, padded ones, one token more or less than a chunk."""
    values = inputs(length, directions)
    torch.testing.assert_close(scan(values, "ssd"), scan(values, "reference"), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("step", [1e-4, 5.0])
def test_hardly_and_wholly_forgetting(step: float) -> None:
    """Decays of exp(-5000) over a chunk: any difference taken the wrong way round would overflow."""
    values = inputs(100, step=step)
    y = scan(values, "ssd", 64)
    assert torch.isfinite(y).all()
    # Decays are differences of sums that grow to a thousand, of which single precision keeps four decimals.
    torch.testing.assert_close(y, scan(values, "reference"), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("length", [8 * 9, 8 * 16, 8 * 31 + 3])
def test_states_of_many_chunks_are_carried_in_groups(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from thermal_enhance.networks.temporal import scan as module

    monkeypatch.setattr(module, "MOST_CHUNKS", 4)
    values = inputs(length, step=1e-2)
    torch.testing.assert_close(scan(values, "ssd", 8), scan(values, "reference"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("length", "chunk"), [(5, 16), (16, 16), (21, 8), (67, 16)])
def test_gradients_agree(length: int, chunk: int) -> None:
    found = {}
    for backend in ("reference", "ssd"):
        values = {name: tensor.clone().requires_grad_() for name, tensor in inputs(length).items()}
        (scan(values, backend, chunk) ** 2).mean().backward()
        found[backend] = {name: tensor.grad for name, tensor in values.items()}
    for name, gradient in found["reference"].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found["ssd"][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_a_long_memory_crosses_chunk_borders() -> None:
    values = inputs(64, 1, step=1e-3)
    bumped = {**values, "x": values["x"].clone()}
    bumped["x"][:, 0] += 100
    change = (scan(bumped, "ssd", 16) - scan(values, "ssd", 16)).abs().amax(dim=(0, 2, 3))
    assert change[50:].max() > 1e-3


def test_forward_alone_is_causal_and_two_directions_are_not() -> None:
    for directions, earlier in ((1, False), (2, True)):
        values = inputs(40, directions)
        bumped = {**values, "x": values["x"].clone()}
        bumped["x"][:, 30] += 1
        change = (scan(bumped, "ssd") - scan(values, "ssd")).abs().amax(dim=(0, 2, 3))
        assert bool(change[:30].max() > 1e-4) is earlier


def test_backward_is_forward_on_the_turned_sequence() -> None:
    values = inputs(37)
    values["d"] = torch.zeros_like(values["d"])
    turned = {name: values[name].flip(1) for name in ("x", "dt", "b", "c")}
    swapped = {**values, **turned, "a": values["a"].flip(0)}
    swapped["b"], swapped["c"] = swapped["b"].flip(2), swapped["c"].flip(2)
    torch.testing.assert_close(scan(swapped, "ssd").flip(1), scan(values, "ssd"), atol=2e-5, rtol=1e-4)


def test_the_prompt_is_added_to_the_output_map() -> None:
    values = inputs(20)
    added = {**values, "c": values["c"] + values["prompt"], "prompt": None}
    torch.testing.assert_close(scan(values, "ssd"), scan(added, "ssd"))


def test_no_step_leaves_only_what_passes_by() -> None:
    values = inputs(20)
    values["dt"] = torch.zeros_like(values["dt"])
    torch.testing.assert_close(scan(values, "ssd"), values["x"] * values["d"][:, None])


def test_half_precision_keeps_exponentials_in_single() -> None:
    values = inputs(64)
    half = {name: tensor.bfloat16() for name, tensor in values.items()}
    half["dt"], half["a"] = values["dt"], values["a"]
    y = scan(half, "ssd")
    assert y.dtype == torch.bfloat16
    wanted = scan(values, "reference")
    assert (y.float() - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize(
    ("length", "most", "wanted"), [(1200, 64, 60), (64, 64, 64), (67, 64, 64), (30, 64, 30), (320, 64, 64)]
)
def test_chunk_length(length: int, most: int, wanted: int) -> None:
    assert chunk_length(length, most) == wanted


def test_refusals() -> None:
    values = inputs(4)
    with pytest.raises(ValueError, match="scan_backend must be one of reference, ssd, mamba_ssm, not 'fast'"):
        scan(values, "fast")
    with pytest.raises(ValueError, match="the same one or two directions, not 1, 2 and 2"):
        scan({**values, "a": values["a"][:1]}, "ssd")


def test_without_mamba_ssm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(RuntimeError, match="needs the Python package mamba_ssm"):
        scan(inputs(4), "mamba_ssm")


def test_mamba_ssm_runs_each_direction_with_its_own_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel, played by the loop: what it is handed, and in which order, is ours."""
    from types import ModuleType

    from thermal_enhance.networks.temporal import scan as module

    def kernel(x: Any, dt: Any, a: Any, b: Any, c: Any, chunk_size: int) -> Any:
        assert (a.ndim, b.shape[2], c.shape[2], chunk_size) == (1, 1, 1, 16)
        return module._reference(x, dt, a[None], b, c, chunk_size, module.ScanTables())

    names = ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.ops.triton.ssd_combined")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].mamba_chunk_scan_combined = kernel  # type: ignore[attr-defined]
    values = inputs(21)
    with pytest.raises(RuntimeError, match="on CUDA only"):
        scan(values, "mamba_ssm")
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    torch.testing.assert_close(scan(values, "mamba_ssm"), scan(values, "reference"), atol=1e-5, rtol=1e-5)
