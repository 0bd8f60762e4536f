"""The selective scan, in the parametrisation of state-space duality (Mamba-2; METHODS 2.6).

For each head, with a state of N x P numbers that starts at 0:

    h_t = exp(dt_t a) h_{t-1} + dt_t b_t x_t^T        y_t = c_t h_t + d x_t
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

SHORT = 8
"""Sequences of up to this many tokens are summed pair by pair: matrices this small would be all overhead."""
LEAST = 1e-12


def selective_scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None = None,
    *,
    prompt: Tensor | None = None,
    backend: str = "ssd",
    chunk: int = 64,
) -> Tensor:
    """Scan sequences forward or, with K = 2, forward and backward, the two summed.

    Args:
        x: (S, L, H, P) values of S sequences, L tokens, H heads of P channels.
        dt: (S, L, K, H) step sizes, at least 0; K = 1 direction (forward) or 2 (forward, backward).
        a: (K, H) rates, below 0.
        b, c: (S, L, K, N) input and output maps, shared by the heads.
        d: (H,) what passes by the state; None for nothing.
        prompt: the thermal prompt, added to c; broadcasts to (S, L, K, N).
        backend: `reference` (token by token, the oracle), `ssd` (matrix products in chunks; for CPU, GPU and
            export) or `mamba_ssm` (the CUDA kernels of that package).
        chunk: most tokens of a chunk.

    Returns:
        (S, L, H, P).

    Raises:
        ValueError: an unknown backend, or K is neither 1 nor 2.
        RuntimeError: mamba_ssm is asked for and not installed, or the tensors are not on a GPU.
    """
    if backend not in _BACKENDS:
        raise ValueError(f"scan_backend must be one of {', '.join(_BACKENDS)}, not {backend!r}")
    if dt.shape[2] not in {1, 2}:
        raise ValueError(f"dt, b and c need one direction or two, not {dt.shape[2]}")
    if prompt is not None:
        c = c + prompt
    y = _BACKENDS[backend](x, dt, a, b, c, chunk)
    return y if d is None else y + x * d[:, None]


def _reference(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, _chunk: int) -> Tensor:
    total = torch.zeros_like(x)
    for direction in range(dt.shape[2]):
        steps, maps_in, maps_out = dt[:, :, direction], b[:, :, direction], c[:, :, direction]
        state = x.new_zeros(x.shape[0], x.shape[2], b.shape[-1], x.shape[3])
        outputs: list[Tensor] = []
        tokens = range(x.shape[1])
        for t in reversed(tokens) if direction else tokens:
            decay = torch.exp(steps[:, t] * a[direction])[..., None, None]
            entering = maps_in[:, t, None, :, None] * (steps[:, t, :, None] * x[:, t])[:, :, None]
            state = decay * state + entering
            outputs.append((maps_out[:, t, None, None] @ state)[:, :, 0])
        total = total + torch.stack(outputs[::-1] if direction else outputs, dim=1)
    return total


def _ssd(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int) -> Tensor:
    length = x.shape[1]
    dt, a = dt.float(), a.float()  # sums of many steps and their exponentials
    if length <= SHORT:
        return _pairs(x, dt, a, b, c)
    size = chunk_length(length, chunk)
    missing = -length % size
    if missing:  # tokens with dt = 0 leave the state as it is
        x, dt, b, c = (functional.pad(value, (0, 0, 0, 0, 0, missing)) for value in (x, dt, b, c))
    y = _chunked(x, dt, a, b, c, size)
    return y[:, :length] if missing else y


def chunk_length(length: int, most: int) -> int:
    """Tokens of a chunk: the longest that divides the length, if one above half of `most` does."""
    if length <= most:
        return length
    return next((size for size in range(most, most // 2, -1) if length % size == 0), most)


def _earlier(size: int, directions: int, device: torch.device, strict: bool = False) -> Tensor:
    """(K, size, size) booleans: does token j come before token i (or is it, unless strict)?

    Made by comparison: a graph's CumSum is slow where it is right (METHODS 0.8).
    """
    index = torch.arange(size, device=device)
    gap = index[:, None] - index[None, :]
    least = 1 if strict else 0
    return torch.stack([gap >= least, -gap >= least][:directions])


def _pairs(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Short sequences: y_i = sum over earlier j of (c_i b_j) exp(sum of dt a from j to i) dt_j x_j."""
    length = x.shape[1]
    outputs: list[Tensor | None] = [None] * length
    for direction in range(dt.shape[2]):
        steps, maps_in, maps_out = dt[:, :, direction], b[:, :, direction], c[:, :, direction]
        rates = steps * a[direction]
        for i in range(length):
            path = None
            for j in range(i, length) if direction else range(i, -1, -1):
                weight = (maps_out[:, i] * maps_in[:, j]).sum(dim=-1, keepdim=True) * steps[:, j]
                if path is not None:
                    weight = weight * torch.exp(path)
                # The decay from j to i: of all tokens behind j up to i itself.
                path = rates[:, j] if path is None else path + rates[:, j]
                term = weight[..., None].to(x.dtype) * x[:, j]
                so_far = outputs[i]
                outputs[i] = term if so_far is None else so_far + term
    return torch.stack([output for output in outputs if output is not None], dim=1)


def _chunked(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, size: int) -> Tensor:
    sequences, length, heads, width = x.shape
    directions, states = dt.shape[2], b.shape[-1]
    chunks = length // size
    values = x.reshape(sequences, chunks, size, heads, width).transpose(2, 3)  # (S, c, H, Q, P)
    steps = dt.reshape(sequences, chunks, size, directions, heads).permute(0, 1, 3, 4, 2)  # (S, c, K, H, Q)
    maps_in = b.reshape(sequences, chunks, size, directions, states).transpose(2, 3)  # (S, c, K, Q, N)
    maps_out = c.reshape(sequences, chunks, size, directions, states).transpose(2, 3)
    rates = steps * a[:, :, None]
    earlier = _earlier(size, directions, x.device).to(rates.dtype)
    sums = rates @ earlier.transpose(1, 2)  # (S, c, K, H, Q): from the chunk's beginning, its own included

    # Inside a chunk. Forward fills the lower triangle and backward the upper one, so that a single matrix
    # holds both; the diagonal, where they meet, is the sum of the two.
    pairs = maps_out @ maps_in.transpose(-1, -2)  # (S, c, K, Q, Q)
    starts = sums - torch.log(steps.clamp_min(LEAST))  # dt_j goes into the exponent
    exponent = sums[:, :, 0, :, :, None] - starts[:, :, 0, :, None, :]
    lower = _earlier(size, 1, x.device)[0]
    if directions == 1:
        weight = pairs[:, :, 0] * lower.to(pairs.dtype)
        exponent = torch.where(lower, exponent, -1e4)
    else:
        weight = torch.where(lower, pairs[:, :, 0], pairs[:, :, 1])
        back = sums[:, :, 1, :, :, None] - starts[:, :, 1, :, None, :]
        exponent = torch.where(lower, exponent, back)
    matrix = torch.exp(exponent).to(x.dtype) * weight[:, :, None]
    y = matrix @ values  # (S, c, H, Q, P)
    if directions == 2:
        own = (maps_out[:, :, 1] * maps_in[:, :, 1]).sum(dim=-1)[:, :, None] * steps[:, :, 1]
        y = y + own[..., None].to(x.dtype) * values

    if chunks > 1:
        totals = rates.sum(dim=-1, keepdim=True)  # (S, c, K, H, 1)
        leaving = torch.exp(totals - starts).to(x.dtype)
        into = maps_in.transpose(-1, -2)[:, :, :, None] * leaving[..., None, :]  # (S, c, K, H, N, Q)
        added = into @ values[:, :, None]  # (S, c, K, H, N, P)
        added = added.permute(0, 2, 3, 1, 4, 5).reshape(sequences, directions, heads, chunks, states * width)
        carried = _carry(totals[..., 0].permute(0, 2, 3, 1)).to(x.dtype)
        entering = (carried @ added).reshape(sequences, directions, heads, chunks, states, width)
        entering = entering.permute(0, 3, 2, 1, 4, 5).reshape(
            sequences, chunks, heads, directions * states, width
        )
        reading = maps_out[:, :, :, None] * torch.exp(sums)[..., None].to(x.dtype)  # (S, c, K, H, Q, N)
        reading = reading.permute(0, 1, 3, 4, 2, 5).reshape(
            sequences, chunks, heads, size, directions * states
        )
        y = y + reading @ entering
    return y.transpose(2, 3).reshape(sequences, length, heads, width)


def _carry(totals: Tensor) -> Tensor:
    """(S, K, H, c) sums of the chunks to (S, K, H, c, c): what is left of chunk j's state as chunk i begins."""
    chunks, directions = totals.shape[-1], totals.shape[1]
    strictly = _earlier(chunks, directions, totals.device, strict=True)
    before = strictly.to(totals.dtype)
    sums = (totals[..., None, :] @ before.transpose(1, 2)[:, None])[..., 0, :]  # all chunks before i
    exponent = sums[..., :, None] - (sums + totals)[..., None, :]
    return torch.exp(torch.where(strictly[:, None], exponent, -1e4))


def _mamba_ssm(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int) -> Tensor:
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError as error:
        raise RuntimeError(
            "scan_backend mamba_ssm needs the Python package mamba_ssm, built for CUDA "
            f"({error}); scan_backend ssd needs nothing"
        ) from error
    if not x.is_cuda:
        raise RuntimeError("scan_backend mamba_ssm runs on CUDA only; use ssd on the CPU and for export")
    total = None
    for direction in range(dt.shape[2]):
        parts = (x, dt[:, :, direction], b[:, :, direction, None], c[:, :, direction, None])
        turned = [part.flip(1) if direction else part for part in parts]
        y = mamba_chunk_scan_combined(
            turned[0].contiguous(), turned[1].contiguous(), a[direction].contiguous(),
            turned[2].contiguous(), turned[3].contiguous(), chunk,
        )  # fmt: skip
        y = y.flip(1) if direction else y
        total = y if total is None else total + y
    assert total is not None
    return total


_BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], Tensor]] = {
    "reference": _reference,
    "ssd": _ssd,
    "mamba_ssm": _mamba_ssm,
}
