"""Flat shifts with late normalisation: on tokens (B, H·W, C) a shift is one contiguous window.

With r = k // 2 and r·W + r zero tokens before and after k and v, the shift by (dy, dx) is the
window that starts at (dy+r)·W + dx + r. Rows wrap around at the left and right border; a mask
M_dx sets the wrapped columns to zero, once per dx, on the sums over dy:

    logit_j(p) = Σ_c q_c(p) B[h,c,j] + Σ_dx M_dx(p) Σ_dy Σ_c w[c,j,δ] · q_c(p) k_c(p+δ)
    e_j(p)     = exp(logit_j(p) − max_j logit_j(p))
    out_c(p)   = (Σ_j e_j b[c,j] + Σ_dx M_dx(p) Σ_dy v_c(p+δ) · Σ_j w[c,j,δ] e_j(p)) / Σ_j e_j(p)

A head's channels are adjacent and all heads share one kernel, so tokens and heads form one axis
(B, H·W·h, d), and the sums over c and over j are products with one (d, k²) matrix per δ.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slide_deploy.lowering.folding import Folded, Projection, fold
from slide_deploy.lowering.layers import (
    add_up,
    linear,
    repeat_taps,
    slot_bias,
    static_size,
)
from slide_deploy.lowering.lowering import Lowering
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["LOWERING", "FlatShifts"]


class FlatShifts(nn.Module):
    """Slide Attention on (B, H·W·h, d) rows; the logits of a head have `slots` ≥ k² columns."""

    def __init__(self, folded: Folded, slots: int) -> None:
        super().__init__()
        config, dtype = folded.config, folded.dtype
        self.config, self.slots = config, slots
        self.projections = nn.ModuleList(linear(p, dtype) for p in folded.projections)

        # B differs between heads: block-diagonal, (h·slots, h·d).
        query_bias = repeat_taps(folded.query_bias, slots)
        weight = torch.block_diag(*query_bias.transpose(1, 2))
        bias = slot_bias(config.taps, slots).repeat(config.heads)
        self.query_bias = linear(Projection(weight, bias if slots > config.taps else None), dtype)
        self.value_bias = linear(Projection(repeat_taps(folded.value_bias, slots), None), dtype)
        self.keys = nn.ModuleList(
            linear(Projection(repeat_taps(weight, slots).T, None), dtype)
            for weight in folded.key_kernel.permute(2, 0, 1)
        )
        self.values = nn.ModuleList(
            linear(Projection(repeat_taps(weight, slots), None), dtype)
            for weight in folded.value_kernel.permute(2, 0, 1)
        )
        self.output = linear(folded.output, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; (B, H, W, C) → (B, H, W, C)."""
        height, width = static_size(x)
        config, pixels = self.config, height * width
        x = x.reshape(-1, pixels, config.dim)
        mapped = [projection(x) for projection in self.projections]
        q, k, v = mapped * (3 if config.share_qkv else 1)

        logits = self.query_bias(q).reshape(-1, pixels * config.heads, self.slots)
        q = q.reshape(-1, pixels * config.heads, config.head_dim)
        for mask, windows in self._columns(k, height, width):
            partial = add_up(self.keys[tap](q * window) for tap, window in windows)
            logits = logits + (partial if mask is None else partial * mask)

        weights = (logits - logits.amax(dim=-1, keepdim=True)).exp()
        total = weights.sum(dim=-1, keepdim=True)
        out: Tensor = self.value_bias(weights)
        for mask, windows in self._columns(v, height, width):
            partial = add_up(self.values[tap](weights) * window for tap, window in windows)
            out = out + (partial if mask is None else partial * mask)
        out = (out / total).reshape(-1, pixels, config.inner)
        out = self.output(out)
        return out.reshape(-1, height, width, config.dim)

    def _columns(
        self, x: Tensor, height: int, width: int
    ) -> Iterator[tuple[Tensor | None, Iterator[tuple[int, Tensor]]]]:
        """For each dx, its mask and the shifted windows of x with their kernel positions."""
        heads, side = self.config.heads, self.config.kernel_size
        reach, rows = side // 2, height * width * heads
        margin = reach * (width + 1)
        padded = F.pad(x, (0, 0, margin, margin))
        padded = padded.reshape(-1, rows + 2 * margin * heads, self.config.head_dim)

        total = rows + 2 * margin * heads

        def windows(column: int) -> Iterator[tuple[int, Tensor]]:
            for row in range(side):
                start = (row * width + column) * heads
                yield row * side + column, _window(padded, (start, rows, total - start - rows))

        for column in range(side):
            yield self._mask(x, height, width, column - reach), windows(column)

    def _mask(self, x: Tensor, height: int, width: int, dx: int) -> Tensor | None:
        """1 where the column at distance dx is inside the map, shape (1, H·W·h, 1)."""
        if dx == 0:
            return None
        outside = min(abs(dx), width)
        inside = torch.ones(1, 1, width - outside, 1, dtype=x.dtype, device=x.device)
        mask = F.pad(inside, (0, 0, *((0, outside) if dx > 0 else (outside, 0))))
        mask = mask.expand(1, height, width, self.config.heads)
        return mask.reshape(1, height * width * self.config.heads, 1)


def _window(x: Tensor, parts: tuple[int, int, int]) -> Tensor:
    """The middle one of three parts, by a split, which runtimes do without a copy."""
    kept = [part for part in parts if part]
    return x.split_with_sizes(kept, dim=1)[1 if parts[0] else 0]


def build(module: FusedSlideAttention) -> nn.Module:
    return FlatShifts(fold(module), slots=module.config.taps)


LOWERING = Lowering(
    name="flat",
    build=build,
)
