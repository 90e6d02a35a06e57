"""Neighbourhood attention in common operations: each query attends to its k × k nearest tokens.

Source: Hassani et al., "Neighborhood Attention Transformer", CVPR 2023, arXiv 2204.07143;
semantics and state-dict names (`qkv`, `rpb`, `proj`) are those of the authors' NATTEN with
dilation 1. At a border the window is moved inwards, not padded: query i of an axis of length n
attends to s … s+k−1 with s = clamp(i − k//2, 0, n − k), and the bias of key j is
`rpb[j − i + k − 1]`. A map smaller than k is padded with zeros at its end before `qkv`, as in
NATTEN's module, so these tokens are attended to and have the biases of k and v.

NATTEN has its own kernels. Here tiles of queries attend to all tokens that any of them needs, and a
constant hides the others. The result is equal, but hidden products are computed. An axis shorter
than 3·k is one tile: 196 × 196 logits per head at 14 × 14 (4 times the 196 · k² that are needed),
and 49 × 49 at 7 × 7 with none hidden. A longer axis is divided into tiles of k queries with 2k−1
keys, so that the cost is linear in the map, with 3.4 times the needed logits for k = 7. The
expanded bias has heads · tiles · queries · keys constants: 1.2 MB per block in stage 3 of
Slide-NAT-T at 224 × 224 in float32, if a runtime folds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from slide_deploy.models.shapes import shapes_only
from slide_deploy.models.windows import from_windows, to_windows

__all__ = ["AxisTiles", "NeighborhoodAttention"]

# Far below any logit, so that its exponential is 0 in every precision, and in the range of float16.
HIDDEN = -3e4


@dataclass(frozen=True)
class AxisTiles:
    """The tiles of queries of one axis of `size` tokens, each with its span of keys."""

    size: int
    kernel: int

    @property
    def _cut(self) -> bool:
        # From this size on, tiles need at most two thirds of the products of the whole axis.
        return self.size >= 3 * self.kernel

    @property
    def queries(self) -> int:
        """The number of queries of a tile."""
        return self.kernel if self._cut else self.size

    @property
    def keys(self) -> int:
        """The number of keys of a tile, which include the neighbours of all its queries."""
        return 2 * self.kernel - 1 if self._cut else self.size

    @property
    def starts(self) -> tuple[int, ...]:
        """The first key of each tile."""
        tiles = -(-self.size // self.queries)
        last, before = self.size - self.keys, self.kernel // 2
        return tuple(min(max(i * self.queries - before, 0), last) for i in range(tiles))

    @property
    def padding(self) -> int:
        """The number of queries of the last tile beyond the axis."""
        return len(self.starts) * self.queries - self.size

    def spans(self, x: Tensor, axis: int) -> Tensor:
        """The keys of all tiles, concatenated along `axis`."""
        if len(self.starts) == 1:
            return x
        return torch.cat([x.narrow(axis, start, self.keys) for start in self.starts], dim=axis)

    def relative(self) -> Tensor:
        """Index into an axis of `rpb`, −1 where hidden, shape (tiles, queries, keys)."""
        tile = torch.arange(len(self.starts))[:, None, None]
        # Queries beyond the axis are removed later, so they may have any window.
        query = (tile * self.queries + torch.arange(self.queries)[None, :, None]).clamp(
            max=self.size - 1
        )
        key = torch.tensor(self.starts)[:, None, None] + torch.arange(self.keys)[None, None, :]
        first = (query - self.kernel // 2).clamp(0, self.size - self.kernel)
        seen = (key >= first) & (key < first + self.kernel)
        return torch.where(seen, key - query + self.kernel - 1, -1)


def bias_index(rows: AxisTiles, columns: AxisTiles) -> Tensor:
    """Entry of the flattened `rpb` for each query and key of each tile, one past its end where
    hidden, shape (tiles · queries · keys)."""
    if shapes_only():
        count = [len(axis.starts) * axis.queries * axis.keys for axis in (rows, columns)]
        return torch.empty(count[0] * count[1], dtype=torch.long)
    side = 2 * rows.kernel - 1
    # Axes: tile row, tile column, query row, query column, key row, key column.
    row = rows.relative()[:, None, :, None, :, None]
    column = columns.relative()[None, :, None, :, None, :]
    seen = (row >= 0) & (column >= 0)
    return torch.where(seen, row * side + column, side * side).reshape(-1)


class NeighborhoodAttention(nn.Module):
    """Multi-head attention within clamped k × k windows; (B, H, W, C) → (B, H, W, C)."""

    bias_index: Tensor
    fixes_size = "attends in neighbourhoods that are laid out for one map"

    def __init__(
        self,
        dim: int,
        heads: int,
        kernel_size: int,
        resolution: tuple[int, int],
        *,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.resolution = dim, heads, resolution
        self.scale = qk_scale or (dim // heads) ** -0.5
        self.rows, self.columns = (
            AxisTiles(max(size, kernel_size), kernel_size) for size in resolution
        )
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.rpb = nn.Parameter(torch.zeros(heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        self.proj = nn.Linear(dim, dim)
        # Not in the public state dict, and determined by the map.
        index = bias_index(self.rows, self.columns)
        self.register_buffer("bias_index", index, persistent=False)

    @property
    def tiles(self) -> int:
        """Number of tiles of one map."""
        return len(self.rows.starts) * len(self.columns.starts)

    def bias(self) -> Tensor:
        """Position bias where a query sees a key, HIDDEN elsewhere: (1, tiles·h, q, k)."""
        table = torch.cat(
            (self.rpb.reshape(self.heads, -1), self.rpb.new_full((self.heads, 1), HIDDEN)), dim=1
        )
        queries = self.rows.queries * self.columns.queries
        keys = self.rows.keys * self.columns.keys
        bias = table.index_select(1, self.bias_index)
        bias = bias.reshape(self.heads, self.tiles, queries, keys)
        return bias.permute(1, 0, 2, 3).reshape(1, self.tiles * self.heads, queries, keys)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.rows, self.columns
        height, width = self.resolution
        x = _pad(x, rows.size - height, columns.size - width)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = to_windows(_pad(q, rows.padding, columns.padding), rows.queries, columns.queries)
        queries, keys, values = self._by_head(q), self._spans(k), self._spans(v)

        logits = (queries * self.scale) @ keys.transpose(-2, -1)
        if self.tiles == 1:
            logits = logits + self.bias()
        else:
            # Tiles and heads form one axis, so that the addition has rank 4.
            shape = logits.shape
            logits = logits.reshape(-1, self.tiles * self.heads, *shape[2:]) + self.bias()
            logits = logits.reshape(-1, self.heads, *shape[2:])
        out = (logits.softmax(dim=-1) @ values).permute(0, 2, 1, 3)

        padded = rows.size + rows.padding, columns.size + columns.padding
        out = out.reshape(-1, rows.queries * columns.queries, self.dim)
        out = from_windows(out, rows.queries, columns.queries, *padded)
        if padded != self.resolution:
            out = out[:, :height, :width]
        return self.proj(out)

    def _spans(self, x: Tensor) -> Tensor:
        spans = self.columns.spans(self.rows.spans(x, 1), 2)
        return self._by_head(to_windows(spans, self.rows.keys, self.columns.keys))

    def _by_head(self, x: Tensor) -> Tensor:
        """(N, tokens, C) → (N, h, tokens, d)."""
        return x.reshape(-1, x.shape[1], self.heads, self.dim // self.heads).permute(0, 2, 1, 3)


def _pad(x: Tensor, rows: int, columns: int) -> Tensor:
    """Zeros below and to the right of (B, H, W, C)."""
    return functional.pad(x, (0, 0, 0, columns, 0, rows)) if rows or columns else x
