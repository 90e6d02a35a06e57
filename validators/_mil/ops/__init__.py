"""MIL's operations in numpy, one family to a file; importing this fills the table."""

from slide_deploy.validators._mil.ops import (
    activation,
    compression,
    constants,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reduction,
    resizing,
    shaping,
)
from slide_deploy.validators._mil.ops.registry import OPERATIONS, Arguments, call

__all__ = [
    "OPERATIONS",
    "Arguments",
    "activation",
    "call",
    "compression",
    "constants",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "resizing",
    "shaping",
]
