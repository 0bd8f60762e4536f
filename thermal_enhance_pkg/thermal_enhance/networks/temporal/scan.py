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
MOST_CHUNKS = 64
"""Chunks whose states are carried on by one matrix product."""


class ScanTables:
    """Constant matrices of a run, each made once: a graph would hold a copy of its own for every use."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int, torch.device, bool], tuple[Tensor, Tensor]] = {}

    def earlier(
        self, size: int, directions: int, device: torch.device, strict: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Does token j come before token i (or is it, unless strict)?

        Made by comparison: a graph's CumSum is slow where it is right (METHODS 0.8).

        Returns:
            0 and 1 over i and j, and over j and i: (K, size, size); if strict (K, 1, 1, size, size).
        """
        key = (size, directions, device, strict)
        if key not in self._made:
            index = torch.arange(size, device=device)
            later, sooner = index[:, None], index[None, :]
            found = [later > sooner, later < sooner] if strict else [later >= sooner, later <= sooner]
            table = torch.stack(found[:directions]).float()
            # In the shape they are used in, for the same reason.
            table = table[:, None, None] if strict else table
            self._made[key] = table, table.transpose(-1, -2)
        return self._made[key]


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
    tables: ScanTables | None = None,
) -> Tensor:
    """Scan sequences forward or, with K = 2, forward and backward, the two summed.

    Args:
        x: (S, L, H, P) values of S sequences, L tokens, H heads of P channels.
        dt: (S, L, H) step sizes, at least 0.
        a: (K, H) rates, below 0; K = 1 direction (forward) or 2 (forward, backward).
        b: (S, L, K, N) input maps, shared by the heads.
        c: (S, L, K, N) output maps.
        d: (H,) what passes by the state; None for nothing.
        prompt: the thermal prompt, added to c; broadcasts to (S, L, K, N).
        backend: `reference` (token by token, the oracle), `ssd` (matrix products in chunks; for CPU, GPU and
            export) or `mamba_ssm` (the CUDA kernels of that package).
        chunk: most tokens of a chunk of `ssd` and `mamba_ssm`.
        tables: of the run, to share with its other scans.

    Returns:
        (S, L, H, P).

    Raises:
        ValueError: an unknown backend, or K is neither 1 nor 2.
        RuntimeError: mamba_ssm is asked for and not installed, or the tensors are not on a GPU.
    """
    if backend not in _BACKENDS:
        raise ValueError(f"scan_backend must be one of {', '.join(_BACKENDS)}, not {backend!r}")
    if not a.shape[0] == b.shape[2] == c.shape[2] or a.shape[0] not in {1, 2}:
        raise ValueError(
            f"a, b and c need the same one or two directions, not {a.shape[0]}, {b.shape[2]} and {c.shape[2]}"
        )
    if prompt is not None:
        c = c + prompt
    y = _BACKENDS[backend](x, dt, a, b, c, chunk, tables or ScanTables())
    return y if d is None else y + x * d[:, None]


def _reference(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, _chunk: int, _tables: ScanTables
) -> Tensor:
    total = torch.zeros_like(x)
    entering = x * dt[..., None]
    for direction in range(a.shape[0]):
        state = x.new_zeros(x.shape[0], x.shape[2], b.shape[-1], x.shape[3])
        outputs: list[Tensor] = []
        tokens = range(x.shape[1])
        for t in reversed(tokens) if direction else tokens:
            decay = torch.exp(dt[:, t] * a[direction])[..., None, None]
            state = decay * state + b[:, t, direction, None, :, None] * entering[:, t, :, None]
            outputs.append((c[:, t, direction, None, None] @ state)[:, :, 0])
        total = total + torch.stack(outputs[::-1] if direction else outputs, dim=1)
    return total


def _ssd(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int, tables: ScanTables) -> Tensor:
    length = x.shape[1]
    rates = dt.float()[:, :, None] * a.float()  # (S, L, K, H); sums of many, and their exponentials: fp32
    x = x * dt[..., None].to(x.dtype)
    if length <= SHORT:
        return _pairs(x, rates, b, c)
    size = chunk_length(length, chunk)
    missing = -length % size
    if missing:  # tokens with dt = 0 leave the state as it is
        x, rates, b, c = (functional.pad(value, (0, 0, 0, 0, 0, missing)) for value in (x, rates, b, c))
    y = _chunked(x, rates, b, c, size, tables)
    return y[:, :length] if missing else y


def chunk_length(length: int, most: int) -> int:
    """Tokens of a chunk: the longest that divides the length, if one above half of `most` does."""
    if length <= most:
        return length
    return next((size for size in range(most, most // 2, -1) if length % size == 0), most)


def _pairs(x: Tensor, rates: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Short sequences: y_i = sum over earlier j of (c_i b_j) exp(sum of rates from j to i) x_j."""
    length = x.shape[1]
    outputs = []
    for i in range(length):
        total = None
        for j in range(length):
            weight = None
            # Forward from the tokens before, backward from those behind; both hold the token itself.
            for direction in {0} if j < i else {1} if j > i else {0, 1}:
                if direction >= rates.shape[2]:
                    continue
                product = (c[:, i, direction] * b[:, j, direction]).sum(dim=-1, keepdim=True)
                if j != i:
                    passed = range(j + 1, i + 1) if direction == 0 else range(i, j)
                    path = rates[:, passed[0], direction]
                    for k in passed[1:]:
                        path = path + rates[:, k, direction]
                    product = product * torch.exp(path).to(x.dtype)
                weight = product if weight is None else weight + product
            if weight is not None:
                term = weight[..., None] * x[:, j]
                total = term if total is None else total + term
        outputs.append(total)
    return torch.stack([output for output in outputs if output is not None], dim=1)


def _chunked(x: Tensor, rates: Tensor, b: Tensor, c: Tensor, size: int, tables: ScanTables) -> Tensor:
    sequences, length, heads, width = x.shape
    directions, states = b.shape[2:]
    chunks = length // size
    values = x.reshape(sequences, chunks, size, heads, width).transpose(2, 3)  # (S, c, H, Q, P)
    rates = rates.reshape(sequences, chunks, size, directions, heads).permute(0, 1, 3, 4, 2)
    maps_in = b.reshape(sequences, chunks, size, directions, states).transpose(2, 3)  # (S, c, K, Q, N)
    maps_out = c.reshape(sequences, chunks, size, directions, states).transpose(2, 3)
    earlier, onto_later = tables.earlier(size, directions, x.device)
    sums = rates @ onto_later  # (S, c, K, H, Q): from the chunk's beginning, its own included

    # Inside a chunk. Forward fills the lower triangle and backward the upper one, so that a single matrix
    # holds both. A decay's exponent is never above 0 and in the wrong triangle never below: the lesser of the
    # two directions' is the right one (and with a single direction 0 keeps the exponential in range).
    pairs = (maps_out @ maps_in.transpose(-1, -2)) * earlier.to(x.dtype)  # (S, c, K, Q, Q)
    decay = sums[:, :, 0, :, :, None] - sums[:, :, 0, :, None, :]  # (S, c, H, Q, Q)
    if directions == 2:
        decay = torch.minimum(decay, sums[:, :, 1, :, :, None] - sums[:, :, 1, :, None, :])
        weight = pairs[:, :, 0] + pairs[:, :, 1]
    else:
        decay, weight = decay.clamp(max=0), pairs[:, :, 0]
    y = (torch.exp(decay).to(x.dtype) * weight[:, :, None]) @ values

    if chunks > 1:
        totals = rates.sum(dim=-1)  # (S, c, K, H)
        leaving = torch.exp(totals[..., None] - sums).to(x.dtype)
        into = maps_in.transpose(-1, -2)[:, :, :, None] * leaving[..., None, :]  # (S, c, K, H, N, Q)
        added = (into @ values[:, :, None]).permute(0, 2, 3, 1, 4, 5)  # (S, K, H, c, N, P)
        added = added.reshape(sequences, directions, heads, chunks, states * width)
        entering = _entering(added, totals.permute(0, 2, 3, 1), tables)
        entering = entering.reshape(sequences, directions, heads, chunks, states, width)
        reading = maps_out[:, :, :, None] * torch.exp(sums)[..., None].to(x.dtype)  # (S, c, K, H, Q, N)
        # Both directions at once: their states are one longer state.
        reading = reading.permute(0, 1, 3, 4, 2, 5).reshape(sequences, chunks, heads, size, -1)
        entering = entering.permute(0, 3, 2, 1, 4, 5).reshape(sequences, chunks, heads, -1, width)
        y = y + reading @ entering
    return y.transpose(2, 3).reshape(sequences, length, heads, width)


def _entering(added: Tensor, totals: Tensor, tables: ScanTables) -> Tensor:
    """The state at the beginning of each chunk.

    Args:
        added: (S, K, H, c, F) what each chunk adds to the state, as of its end.
        totals: (S, K, H, c) sum of the rates of each chunk.
        tables: of the run.

    Returns:
        (S, K, H, c, F).
    """
    sequences, directions, heads, chunks, width = added.shape
    size = chunk_length(chunks, MOST_CHUNKS)
    missing = -chunks % size
    if missing:
        added, totals = functional.pad(added, (0, 0, 0, missing)), functional.pad(totals, (0, missing))
    groups = (chunks + missing) // size
    added = added.reshape(sequences, directions, heads, groups, size, width)
    totals = totals.reshape(sequences, directions, heads, groups, size)
    strictly, onto_later = tables.earlier(size, directions, totals.device, strict=True)
    before = (totals[..., None, :] @ onto_later)[..., 0, :]  # of all chunks of the group before i
    left = torch.exp((before[..., :, None] - (before + totals)[..., None, :]).clamp(max=0))
    entering = (left * strictly).to(added.dtype) @ added
    if groups > 1:
        # Very long sequences: groups of chunks are to chunks what chunks are to tokens.
        whole = totals.sum(dim=-1)
        leaving = torch.exp(whole[..., None] - before - totals).to(added.dtype)
        outer = _entering((leaving[..., None, :] @ added)[..., 0, :], whole, tables)
        entering = entering + torch.exp(before)[..., None].to(added.dtype) * outer[..., None, :]
    entering = entering.reshape(sequences, directions, heads, groups * size, width)
    return entering[:, :, :, :chunks] if missing else entering


def _mamba_ssm(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int, _tables: ScanTables
) -> Tensor:
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
    for direction in range(a.shape[0]):
        # Its B and C have an axis of groups that share them, here one.
        parts = (x, dt, b[:, :, direction, None], c[:, :, direction, None])
        values, steps, maps_in, maps_out = (
            (part.flip(1) if direction else part).contiguous() for part in parts
        )
        y = mamba_chunk_scan_combined(values, steps, a[direction].contiguous(), maps_in, maps_out, chunk)
        y = y.flip(1) if direction else y
        total = y if total is None else total + y
    assert total is not None
    return total


_BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, ScanTables], Tensor]] = {
    "reference": _reference,
    "ssd": _ssd,
    "mamba_ssm": _mamba_ssm,
}
