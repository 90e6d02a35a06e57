"""CSwin's attention within stripes, with locally enhanced position encoding (LePE).

Source: Dong et al., "CSWin Transformer", CVPR 2022, arXiv 2107.00652; the state-dict name of the
position encoding, `get_v`, is that of the public implementation. It is a depthwise 3 × 3
convolution on the values of one stripe, zero-padded at the stripe's border.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from slide_deploy.models.windows import from_windows, to_windows

__all__ = ["StripeAttention"]


class StripeAttention(nn.Module):
    """Multi-head attention within each stripe; q, k, v as (B, H, W, 3C) → (B, H, W, C).

    A map that stripes do not tile is padded with zeros, after the projection, half on each side, as
    in the public segmentation backbone. These keys are not hidden; their logits are 0.
    """

    fixes_size = "attends in stripes that are cut for one map"

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: tuple[int, int],
        stripe: tuple[int, int],
        qk_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.resolution, self.stripe = dim, heads, resolution, stripe
        self.scale = qk_scale or (dim // heads) ** -0.5
        self.get_v = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, qkv: Tensor) -> Tensor:
        (height, width), (rows, columns) = self.resolution, self.stripe
        missing_rows, missing_columns = -height % rows, -width % columns
        top, left = missing_rows // 2, missing_columns // 2
        if missing_rows or missing_columns:
            around = (0, 0, left, missing_columns - left, top, missing_rows - top)
            qkv = functional.pad(qkv, around)

        tokens = rows * columns
        stripes = to_windows(qkv, rows, columns)
        by_head = stripes.reshape(-1, tokens, 3 * self.heads, self.dim // self.heads)
        q, k, v = by_head.permute(0, 2, 1, 3).chunk(3, dim=1)
        attention = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        out = (attention @ v).permute(0, 2, 1, 3).reshape(-1, tokens, self.dim)

        values = stripes.chunk(3, dim=-1)[2].reshape(-1, rows, columns, self.dim)
        position = self.get_v(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out = out + position.reshape(-1, tokens, self.dim)

        out = from_windows(out, rows, columns, height + missing_rows, width + missing_columns)
        if missing_rows or missing_columns:
            out = out[:, top : top + height, left : left + width]
        return out
