"""Building blocks of several families, on feature maps (B, H, W, C)."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Mlp", "classifier"]


class Mlp(nn.Module):
    """Linear, GELU (erf), Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def classifier(features: int, classes: int) -> nn.Module:
    """The last layer, (B, features) → (B, classes); the identity without classes."""
    return nn.Linear(features, classes) if classes else nn.Identity()
