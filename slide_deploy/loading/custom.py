"""Load custom models, which a factory in the user's own code creates.

Calling the factory runs the user's code; reading its checkpoint runs none.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import operator
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slide_deploy.capture import Capture
from slide_deploy.errors import ArchitectureError, UsageError
from slide_deploy.fusion.branches import fuse
from slide_deploy.fusion.matching import match_attentions
from slide_deploy.fusion.pairs import Match, fuse_by_structure
from slide_deploy.loading.checkpoint import Checkpoint, Source, read_checkpoint
from slide_deploy.loading.containers import State
from slide_deploy.loading.custom_outputs import (
    FlatOutputs,
    is_flat,
    named_tensors,
    output_specs,
)
from slide_deploy.loading.loader import Model
from slide_deploy.loading.prefix import below, prefix_of
from slide_deploy.loading.value_ranges import embedding_rows, with_value_ranges
from slide_deploy.types import Loading, TensorSpec
from slide_deploy.utils.text import first_line, first_names

__all__ = ["FAMILY_NAME", "CustomConfig", "load_foreign", "parse_input", "wrap"]

FAMILY_NAME = "custom"
DTYPES = ("float32", "int32", "int64")


@dataclass(frozen=True)
class CustomConfig:
    """The origin of the module, and the result for each attention and shift pair found in it."""

    factory: str
    shift_pairs: tuple[str, ...]


def load_foreign(
    path: Path | str,
    factory: str,
    inputs: Sequence[TensorSpec] = (),
    *,
    weights: str | None = None,
    image_size: tuple[int, int] | None = None,
    prefix: str | None = None,
    key: str | None = None,
) -> Model:
    """Call `factory` ("package.module:name") and load the weights of `path` into its module.

    `inputs` are passed in order; without them the module gets one image of `image_size`.
    `weights`, `prefix` and `key` choose weights as in `load`. Every key must fit: raises
    ArchitectureError where one does not, UsageError where the factory cannot be found or fails.
    The current folder is searched for it first.
    """
    checkpoint = read_checkpoint(Path(path), key)
    source, state = checkpoint.choose(weights)
    specs = tuple(inputs) or (_image(image_size),)
    module = _built(factory)
    found = prefix or prefix_of(checkpoint, state, module.state_dict())
    state, notes = below(checkpoint, state, found)
    _load_strictly(checkpoint, module, state, factory)
    model = wrap(
        module,
        specs,
        name=checkpoint.name,
        source=source,
        kind=checkpoint.kind,
        factory=factory,
    )
    return replace(
        model,
        notes=(*checkpoint.notes, *notes, *model.notes),
        loading=Loading(weights, image_size, False, prefix, key, factory, tuple(inputs)),
    )


def wrap(
    module: nn.Module,
    inputs: Sequence[TensorSpec],
    *,
    name: str = "model",
    source: Source | None = None,
    kind: str = "module in memory",
    factory: str = "",
) -> Model:
    """Wrap any module as a Model. The module is the reference and is not modified.

    Each of `inputs` has a batch of 1 as its first dimension. The outputs, and the range of integers
    that an embedding takes, are determined by running the module once. Raises UsageError if it does
    not run on `inputs`, or if an output is not a float32 tensor with a batch.
    """
    specs = tuple(inputs)
    _check_inputs(specs)
    own = copy.deepcopy(module).float().eval().requires_grad_(False)
    if next(own.parameters(), None) is None:
        raise UsageError(f"{name} has no weights", "pass a module with parameters")
    example = Capture(own, specs, (), {}).example
    with embedding_rows(own, example) as rows:
        value = _run(own, example, specs)
    specs, ranges = with_value_ranges(specs, rows)
    named = list(named_tensors(value, ""))
    nested = not isinstance(value, Tensor) and not is_flat(value)
    if nested:
        own = FlatOutputs(own).eval()
    _run(copy.deepcopy(own).double(), [_exact(x) for x in example], specs, " in float64")
    outputs = output_specs(named, {spec.name for spec in specs})
    told = tuple(map(_sentence, _found(own, example)))
    return Model(
        name=name,
        source=source or Source(name, _digest(module), "model"),
        kind=kind,
        family=FAMILY_NAME,
        config=CustomConfig(factory or type(module).__qualname__, told),
        module=own,
        inputs=specs,
        outputs=outputs,
        fused=False,
        notes=(*(told or ("no Slide Attention found: exported unchanged",)), *ranges),
        merge=partial(_merged, example=example),
        finish=partial(_finished, nested=nested),
    )


def parse_input(text: str) -> TensorSpec:
    """Parse "name:1x3x224x224[:dtype[:low..high]]"; UsageError for anything else."""
    name, shape, dtype, span = (*text.split(":", 3), "", "", "")[:4]
    sizes = shape.lower().split("x")
    ends = re.fullmatch(r"(-?\d{1,18})\.\.(-?\d{1,18})", span, re.ASCII)
    if (
        not name.isidentifier()
        or not all(s.isascii() and s.isdigit() for s in sizes)
        or (text.count(":") > 2 and not ends)
    ):
        raise UsageError(
            f"--input expects name:shape[:dtype[:low..high]], got {text[:60]!r}",
            "such as image:1x3x224x224, or ids:1x8:int64:0..99 for integers from 0 to 99",
        )
    value_range = (int(ends[1]), int(ends[2])) if ends else None
    spec = TensorSpec(name, tuple(map(int, sizes)), dtype or "float32", value_range)
    _check_inputs((spec,))
    return spec


def _found(module: nn.Module, example: tuple[Tensor, ...]) -> tuple[Match, ...]:
    """Attention modules, and shift pairs that are not in a matched attention."""
    replaced, whole = match_attentions(module, example)
    _, pairs = fuse_by_structure(replaced, example)
    inside = tuple(f"{e.name}.".lstrip(".") for e in whole if e.action == "matched")
    return (*whole, *(pair for pair in pairs if not pair.name.startswith(inside)))


def _sentence(found: Match) -> str:
    matched = found.action == "matched"
    action = "recognised as Slide Attention and lowered" if matched else found.action
    name = found.name.removeprefix(FlatOutputs.PLACE).lstrip(".") or "the module"
    return f"{name}: {action}, {found.why}".replace(f"{FlatOutputs.PLACE}.", "")


def _merged(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """Fuse every matched attention, and restore the module's own output structure."""
    merged = fuse(match_attentions(module, example)[0])
    return merged.get_submodule(FlatOutputs.PLACE) if isinstance(merged, FlatOutputs) else merged


def _finished(capture: Capture, *, nested: bool) -> nn.Module:
    if nested:
        capture = replace(capture, module=FlatOutputs(capture.module).eval())
    return fuse_by_structure(capture.module, capture.example, capture.dynamic_shapes)[0]


def _image(size: tuple[int, int] | None) -> TensorSpec:
    if size is None:
        raise UsageError(
            "the inputs of a custom model are not known",
            "pass --image-size HxW for one image, or --input name:shape for each input",
        )
    return TensorSpec("image", (1, 3, *size))


def _check_inputs(inputs: tuple[TensorSpec, ...]) -> None:
    names = [spec.name for spec in inputs]
    if not inputs or len(set(names)) < len(names):
        raise UsageError(
            f"Input names must be unique; got {', '.join(names) or 'none'}",
            "declare each input once, in the order of the forward method",
        )
    for spec in inputs:
        if not spec.shape or spec.shape[0] != 1 or any(int(size) < 1 for size in spec.shape):
            raise UsageError(
                f"input {spec.name} of shape {'x'.join(map(str, spec.shape))} has no batch of 1",
                "make the first dimension 1; --batch and --dynamic select other batch sizes",
            )
        if spec.dtype not in DTYPES:
            raise UsageError(
                f"input {spec.name} cannot be {spec.dtype}", f"known: {', '.join(DTYPES)}"
            )
        low, high = spec.value_range or (0, 1)
        if low > high or (spec.value_range and spec.dtype == "float32"):
            raise UsageError(
                f"input {spec.name} ({spec.dtype}) has no range {low}..{high}",
                "give the smallest and the largest integer, such as ids:1x8:int64:0..99",
            )


def _built(factory: str) -> nn.Module:
    """Import and call the user's factory."""
    place, _, attribute = factory.partition(":")
    if not place or not attribute:
        raise UsageError(
            f"--model expects package.module:function, got {factory!r}", "such as my.net:build"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        make = operator.attrgetter(attribute)(importlib.import_module(place))
    except Exception as error:  # importing runs the user's code
        raise UsageError(
            f"--model {factory} cannot be imported: {first_line(error)}",
            "check the current folder and PYTHONPATH; --debug shows the traceback",
        ) from error
    try:
        module = make()
    except Exception as error:
        raise UsageError(
            f"--model {factory}() failed: {first_line(error)}",
            "it is called without arguments; --debug shows the traceback",
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"--model {factory}() returned a {type(module).__name__}, not an nn.Module",
            "name a function or class that returns the model",
        )
    return module


def _load_strictly(checkpoint: Checkpoint, module: nn.Module, state: State, factory: str) -> None:
    hint = f"check that {factory} builds the trained model"
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ArchitectureError(f"{checkpoint.path_name}: {lines[-1][:200]}", hint) from error
    for keys, what in ((missing, "lacks"), (unexpected, "has keys that the model lacks:")):
        if keys:
            raise ArchitectureError(f"{checkpoint.path_name} {what} {first_names(keys)}", hint)


def _run(
    module: nn.Module, example: Sequence[Tensor], specs: tuple[TensorSpec, ...], where: str = ""
) -> Any:
    try:
        with torch.no_grad():
            return module(*example)
    except Exception as error:  # the user's own forward
        given = ", ".join(f"{s.name} {'x'.join(map(str, s.shape))} {s.dtype}" for s in specs)
        raise UsageError(
            f"the model does not run on {given}{where}: {first_line(error)}",
            "declare its inputs in order with --input name:shape[:dtype]",
        ) from error


def _exact(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
