"""Building blocks of several families, on feature maps (B, H, W, C)."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Mlp", "classifier"]


class Mlp(nn.Module):
    """Linear, GELU (erf), Linear: (B, H, W, C) → (B, H, W, C).

    It computes on tokens (B, H·W, C): runtimes fuse a product of rank 3 with its bias, the GELU and
    the quantization that follow it, but not one of rank 4.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.fc2(self.act(self.fc1(x.flatten(1, 2))))
        return tokens.reshape(-1, *x.shape[1:])


def classifier(features: int, classes: int) -> nn.Module:
    """The last layer, (B, features) → (B, classes); the identity without classes."""
    return nn.Linear(features, classes) if classes else nn.Identity()
