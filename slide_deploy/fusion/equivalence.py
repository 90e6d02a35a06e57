"""Compares the outputs of a rewritten model with those of the original."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from slide_deploy.models.equivalence import RELATIVE_TOLERANCE, relative_error
from slide_deploy.utils.quiet import quiet
from slide_deploy.utils.text import first_line

__all__ = ["beyond_tolerance", "difference"]


def difference(base: nn.Module, other: nn.Module, example: tuple[Tensor, ...]) -> str:
    """A description of a difference in the outputs of both models in float64, or ""."""
    inputs = tuple(x.double() if x.is_floating_point() else x for x in example)
    try:
        with torch.no_grad(), quiet():  # torch warns when a graph is copied
            expected = _tensors(copy.deepcopy(base).double()(*inputs))
            outputs = _tensors(copy.deepcopy(other).double()(*inputs))
    except Exception as error:  # a custom module may not run in float64
        return f"the model cannot be checked in float64: {first_line(error)}"
    problems = (
        beyond_tolerance(relative_error(*pair), "merging the pairs")
        for pair in zip(expected, outputs, strict=True)
    )
    return next(filter(None, problems), "")


def beyond_tolerance(error: float, doing: str) -> str:
    """A description of a relative error above 1e-12; otherwise empty."""
    return "" if error <= RELATIVE_TOLERANCE else f"{doing} changed the output by {error:.1e}"


def _tensors(value: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
