"""Two-level shifts: k and v are shifted by columns only; all operations are convolutions.

With k_dx(p) = k(p+dx), likewise v_dx. Instead of k and v, q and the attention are shifted by rows:

    logit_j(p) = Σ_c q_c(p) B[h,c,j] + Σ_dy S_dy(p+dy)
    S_dy(p)    = Σ_dx Σ_c w[c,j,dy,dx] · q_c(p−dy) k_dx,c(p)
    out_c(p)   = Σ_j a_j(p) b[c,j]   + Σ_dy U_dy(p+dy)
    U_dy(p)    = Σ_dx v_dx,c(p) · Σ_j w[c,j,dy,dx] a_j(p−dy)

A shift is a depthwise one-hot convolution, a sum over c or j a grouped 1×1 convolution, so
the lowering consists of convolutions on NCHW maps, products and one softmax, without gathers and
strided slices. A head has a multiple of 16 slots for its k² taps, for runtimes that store channels
in blocks; unused slots repeat taps, which share their weight (`repeat_taps`).

It needs more memory: k copies of k, v and q at once, and 16 slots for 9 taps.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from slide_deploy.lowering.folding import Folded, Projection, fold
from slide_deploy.lowering.layers import (
    Shift,
    add_up,
    block_slots,
    pointwise,
    repeat_taps,
    slot_bias,
    spread_heads,
    static_size,
)
from slide_deploy.lowering.lowering import Lowering
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["LOWERING", "TwoLevelShifts"]


class TwoLevelShifts(nn.Module):
    """Slide Attention on (B, C, H, W) maps by row and column shifts."""

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        config, dtype = folded.config, folded.dtype
        heads, taps, side = config.heads, config.taps, config.kernel_size
        self.config = config
        self.slots = block_slots(taps)
        self.projections = nn.ModuleList(pointwise(p, dtype) for p in folded.projections)

        # (h, d, slots) → one row per head and slot.
        query_bias = repeat_taps(folded.query_bias, self.slots)
        weight = query_bias.transpose(1, 2).reshape(-1, config.head_dim)
        bias = slot_bias(taps, self.slots).repeat(heads)
        self.query_bias = pointwise(Projection(weight, bias), dtype, heads)

        weight = spread_heads(repeat_taps(folded.value_bias, self.slots), heads)
        self.value_bias = pointwise(Projection(weight, None), dtype, heads)

        key_kernel = repeat_taps(folded.key_kernel.permute(2, 0, 1), self.slots)
        value_kernel = repeat_taps(folded.value_kernel.permute(2, 0, 1), self.slots)
        self.keys = _grouped(key_kernel.transpose(1, 2), folded)
        self.values = _grouped(value_kernel, folded)

        offsets = range(-(side // 2), side // 2 + 1)
        inner, small = config.inner, heads * self.slots
        self.columns = nn.ModuleList(_shift(inner, 0, dx, folded) for dx in offsets)
        self.rows_against = nn.ModuleList(_shift(inner, -dy, 0, folded) for dy in offsets)
        self.rows_along = nn.ModuleList(_shift(inner, dy, 0, folded) for dy in offsets)
        self.small_against = nn.ModuleList(_shift(small, -dy, 0, folded) for dy in offsets)
        self.small_along = nn.ModuleList(_shift(small, dy, 0, folded) for dy in offsets)
        self.output = pointwise(folded.output, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; (B, H, W, C) → (B, H, W, C)."""
        size = static_size(x)
        x = x.permute(0, 3, 1, 2)
        mapped = [projection(x) for projection in self.projections]
        q, k, v = mapped * (3 if self.config.share_qkv else 1)
        attention = self._softmax(self._logits(q, k), *size)
        out: Tensor = self.output(self._attend(attention, v))
        return out.permute(0, 2, 3, 1)

    def _logits(self, q: Tensor, k: Tensor) -> Tensor:
        logits: Tensor = self.query_bias(q)
        moved = [shift(k) for shift in self.columns]
        for row, (against, along) in enumerate(
            zip(self.rows_against, self.small_along, strict=True)
        ):
            query = against(q)
            partial = add_up(self.keys[tap](query * key) for tap, key in self._row(row, moved))
            logits = logits + along(partial)
        return logits

    def _softmax(self, logits: Tensor, height: int, width: int) -> Tensor:
        heads = self.config.heads
        rows = logits.permute(0, 2, 3, 1).reshape(-1, height * width * heads, self.slots)
        return (
            rows.softmax(dim=-1).reshape(-1, height, width, heads * self.slots).permute(0, 3, 1, 2)
        )

    def _attend(self, attention: Tensor, v: Tensor) -> Tensor:
        out: Tensor = self.value_bias(attention)
        moved = [shift(v) for shift in self.columns]
        for row, (against, along) in enumerate(
            zip(self.small_against, self.rows_along, strict=True)
        ):
            share = against(attention)
            partial = add_up(
                self.values[tap](share) * value for tap, value in self._row(row, moved)
            )
            out = out + along(partial)
        return out

    def _row(self, row: int, moved: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """The kernel positions of a row, each with the map that is shifted by its column."""
        return enumerate(moved, row * self.config.kernel_size)


def _grouped(kernel: Tensor, folded: Folded) -> nn.ModuleList:
    """k² grouped 1×1 convolutions, from one head's weights (δ, out, in)."""
    heads = folded.config.heads
    return nn.ModuleList(
        pointwise(Projection(spread_heads(weight, heads), None), folded.dtype, heads)
        for weight in kernel
    )


def _shift(channels: int, down: int, right: int, folded: Folded) -> nn.Module:
    if not (down or right):
        return nn.Identity()
    return Shift(channels, down, right, folded.dtype, folded.key_kernel.device)


def build(module: FusedSlideAttention) -> nn.Module:
    return TwoLevelShifts(fold(module))


LOWERING = Lowering(
    name="two-level",
    build=build,
)
