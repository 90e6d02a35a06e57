"""Hold weights against an architecture: by names and shapes before it is built, then load them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from slide_deploy.errors import ArchitectureError, CheckpointError
from slide_deploy.loading.containers import State
from slide_deploy.models.family import Family
from slide_deploy.types import TensorSpec
from slide_deploy.utils.text import cut, first_names

__all__ = ["check_fit", "check_sizes", "load_weights", "shapes_of", "without_stage_norms"]

_LARGEST_SIDE = 2**16
_LARGEST_BUFFERS = 2**29  # bytes
# What a file may lack, such as a classifier.
_SPARE_WEIGHTS = 64


def shapes_of(build: Callable[[], nn.Module], state: State) -> nn.Module:
    """The module on the meta device, which takes no memory.

    Raises ArchitectureError as soon as it has more weights than `state` could fill.
    """
    count, room = 0, len(state) + _SPARE_WEIGHTS

    def registered(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal count
        count += weight is not None and weight.is_meta
        if count > room:
            raise ArchitectureError(
                f"its config describes a model of more than {room} weights, "
                f"and the file has {len(state)}",
                "check that the config belongs to these weights",
            )

    handle = register_module_parameter_registration_hook(registered)
    try:
        with torch.device("meta"):
            return build()
    finally:
        handle.remove()


def check_sizes(where: str, inputs: Sequence[TensorSpec], shapes: nn.Module | None = None) -> None:
    """Raise ArchitectureError where the image size in a file is absurd.

    `shapes` is the module on the meta device, whose buffers grow with that size.
    """
    hint = "pass the size that the model was trained for: --image-size HxW"
    for spec in inputs:
        if max(map(int, spec.shape)) > _LARGEST_SIDE:
            size = "x".join(map(str, spec.shape))
            raise ArchitectureError(f"{where} gives the size {size} for {spec.name}", hint)
    buffers = shapes.buffers() if shapes is not None else ()
    if (taken := sum(_bytes(buffer) for buffer in buffers)) > _LARGEST_BUFFERS:
        raise ArchitectureError(
            f"{where} gives an image size whose masks and indices take {taken / 1e9:.1f} GB", hint
        )


def _bytes(value: Tensor) -> int:
    return math.prod(value.shape) * value.element_size()


def without_stage_norms(state: State, shapes: nn.Module) -> tuple[State, tuple[str, ...]]:
    """Without the norms that detectors put on each stage's map, and a note that names them."""
    own = shapes.state_dict()
    norms = [k for k in state if k not in own and re.fullmatch(r"norm\d+\.(weight|bias)", k)]
    if not norms:
        return state, ()
    kept = {key: value for key, value in state.items() if key not in norms}
    note = f"left out the detector's own norms of the maps: {first_names(norms)}"
    return kept, (note,)


def check_fit(
    where: str,
    family: Family,
    shapes: nn.Module,
    state: State,
    spare: frozenset[str],
    *,
    given_size: bool,
) -> None:
    """Raise ArchitectureError unless names and shapes of `state` are those of `shapes`.

    `spare` weights may be missing, and so may buffers that the architecture determines; those
    that depend on the image size are not compared where the user gave it.
    """
    own = shapes.state_dict()
    derived = (*family.derived, *family.derived_from_size)
    needed = [key for key in own if key not in spare and not key.endswith(derived)]
    if missing := [key for key in needed if key not in state]:
        raise ArchitectureError(
            f"{where} lacks {first_names(missing)}", _hint_for_missing(missing, shapes)
        )
    extra = [key for key in state if key not in own and not key.endswith(derived)]
    if extra:
        raise ArchitectureError(
            f"{where} has keys that its architecture lacks: {first_names(extra)}",
            "is the config that of these weights?",
        )
    for key, value in state.items():
        if given_size and key.endswith(family.derived_from_size):
            continue
        if key not in own or own[key].shape != value.shape:
            raise _misfit(where, key, value, own.get(key))


def _hint_for_missing(missing: Sequence[str], shapes: nn.Module) -> str:
    if hasattr(shapes, "forward_features") and all(
        key.startswith(("norm.", "head.", "cls_token")) for key in missing
    ):
        return "a detector's backbone has no classifier: pass --features"
    return "is it the whole model's state dict?"


def _misfit(where: str, key: str, value: Tensor, expected: Tensor | None) -> ArchitectureError:
    has = "nothing" if expected is None else tuple(expected.shape)
    return ArchitectureError(
        f"{where}: {cut(key)} is {tuple(value.shape)}, but its architecture has {has}",
        "pass --image-size HxW if the model was trained for another size or for images "
        "that are not square",
    )


def load_weights(
    where: str, family: Family, module: nn.Module, state: State, *, given_size: bool
) -> None:
    """Load weights that `check_fit` let through, as float32.

    Raises ArchitectureError where a buffer that the architecture determines has other values,
    CheckpointError for a weight beyond float32.
    """
    own = module.state_dict()
    compared = family.derived if given_size else (*family.derived, *family.derived_from_size)
    for key, value in state.items():
        if key.endswith(compared) and not torch.equal(own[key], value.to(own[key].dtype)):
            raise ArchitectureError(
                f"{where}: {cut(key)} does not have the values that its architecture implies",
                "pass --image-size HxW if the model was trained for another size",
            )
    derived = (*family.derived, *family.derived_from_size)
    weights = {
        key: value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if not key.endswith(derived)
    }
    for key, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{where}: {cut(key)} has values beyond float32", "save the weights as float32"
            )
    module.load_state_dict(weights, strict=False)
