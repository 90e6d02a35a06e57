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
from slide_deploy.validators._mil.ops.registry import OPERATIONS, Arguments, Note, call, ignore

__all__ = [
    "OPERATIONS",
    "Arguments",
    "Note",
    "activation",
    "call",
    "compression",
    "constants",
    "convolution",
    "elementwise",
    "ignore",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "resizing",
    "shaping",
]
