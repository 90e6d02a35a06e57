"""Whether a model is built for its shapes alone, on the meta device.

That is done before anything of a checkpoint is built in memory. Arithmetic on the meta device
imports torch.compile, which takes two seconds: constants are then left empty.
"""

from __future__ import annotations

import torch

__all__ = ["shapes_only"]


def shapes_only() -> bool:
    """Whether new tensors are made on the meta device."""
    return torch.get_default_device().type == "meta"
