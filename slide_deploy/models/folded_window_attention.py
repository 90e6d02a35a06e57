"""Window attention with folded constants: no lookup and no scaling at run time.

    softmax_j((s·q_i)·(k_j + b_k) + B_ij + M_ij) does not depend on b_k: it adds the same to all j
    Σ_j a_ij (v_j + b_v) = Σ_j a_ij v_j + b_v, so that proj can hold b_v, as proj(b_v)

The scale s is folded into q's projection; the position bias B is gathered from its table and added
to the mask M of shifted windows in advance. q, k and v have separate projections, so that each is
transposed by the product that uses it. The result is exact, and has fewer operators and no gather.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from slide_deploy.errors import ConversionError
from slide_deploy.models.equivalence import RELATIVE_TOLERANCE, error_on, noise
from slide_deploy.models.window_attention import (
    WindowAttention,
    cyclic_shift,
    partition,
    unpartition,
)

__all__ = ["FoldedWindowAttention", "folded"]


class FoldedWindowAttention(nn.Module):
    """Attention within (shifted) windows; (B, H, W, C) → (B, H, W, C).

    `bias` has shape (h, w², w²), or (windows·h, w², w²) with a mask, so that logits have rank 4.
    """

    bias: Tensor

    def __init__(self, attention: WindowAttention, mask: Tensor | None) -> None:
        super().__init__()
        self.dim, self.heads, self.window = attention.dim, attention.heads, attention.window
        self.shift, self.resolution = attention.shift, attention.resolution

        weight_q, weight_k, weight_v = attention.qkv.weight.chunk(3)
        bias_q, bias_proj = None, attention.proj.bias
        if attention.qkv.bias is not None:
            bias_q, _, bias_v = attention.qkv.bias.chunk(3)
            bias_q, bias_proj = bias_q * attention.scale, attention.proj(bias_v)
        self.query = _linear(weight_q * attention.scale, bias_q)
        self.key = _linear(weight_k, None)
        self.value = _linear(weight_v, None)
        self.proj = _linear(attention.proj.weight, bias_proj)

        bias = attention.bias()
        if mask is not None:
            bias = (bias + mask[:, None]).flatten(0, 1)
        self.groups = len(bias)  # heads, or heads of each window
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.resolution
        tokens, depth = self.window**2, self.dim // self.heads
        if self.shift:
            x = cyclic_shift(x, -self.shift)
        windows = partition(x, self.window)
        q = self._by_head(self.query(windows)).permute(0, 2, 1, 3)
        k = self._by_head(self.key(windows)).permute(0, 2, 3, 1)
        v = self._by_head(self.value(windows)).permute(0, 2, 1, 3)
        if self.groups > self.heads:
            q, v = (x.reshape(-1, self.groups, tokens, depth) for x in (q, v))
            k = k.reshape(-1, self.groups, depth, tokens)
        out = (q @ k + self.bias).softmax(dim=-1) @ v
        if self.groups > self.heads:
            out = out.reshape(-1, self.heads, tokens, depth)
        out = self.proj(out.permute(0, 2, 1, 3).reshape(-1, tokens, self.dim))
        out = unpartition(out, self.window, height, width)
        return cyclic_shift(out, self.shift) if self.shift else out

    def _by_head(self, x: Tensor) -> Tensor:
        """(windows·B, w², C) → (windows·B, w², h, C / h)."""
        return x.reshape(-1, self.window**2, self.heads, self.dim // self.heads)


@torch.no_grad()
def folded(attention: WindowAttention, mask: Tensor | None, name: str) -> FoldedWindowAttention:
    """The attention with its constants, including the mask, folded.

    Raises ConversionError, with the module's `name`, if its output differs in float64 from that of
    the original module.
    """
    exact = copy.deepcopy(attention).double()
    exact_mask = None if mask is None else mask.double()
    result = FoldedWindowAttention(exact, exact_mask)
    x = noise((2, *attention.resolution, attention.dim))
    error = error_on(x, lambda x: exact(x, exact_mask), result)
    if not error <= RELATIVE_TOLERANCE:
        raise ConversionError(
            f"folding the constants of {name} changed its output by {error:.1e} relative",
            "please report it, with the sizes of the model",
        )
    return result.to(attention.qkv.weight.dtype).train(attention.training)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    out, width = weight.shape
    # On the meta device, because the weights are assigned and need no initial values.
    layer = nn.Linear(width, out, bias=bias is not None, device="meta")
    state = {"weight": weight.contiguous()} | ({} if bias is None else {"bias": bias})
    layer.load_state_dict(state, assign=True)
    return layer.requires_grad_(False)
