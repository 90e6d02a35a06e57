"""A model captured for export: the module, its inputs, and graphs that exporters share."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from slide_deploy.errors import UsageError
from slide_deploy.types import Pixels, SizeSteps, TensorSpec

__all__ = ["Capture", "Classifier", "HalfPrecision", "Normalised", "zeros"]

# What torch.export says of a free dimension, by our name, whose value decides what is computed.
FIXED = re.compile(
    r"Constraints violated \((?:\d+\*)?(\w+?)(?:_steps)?[,)].*?constant \((\d+)\)", re.DOTALL
)


@dataclass(frozen=True)
class Capture:
    """A fused module in eval mode with named inputs and outputs, the argument of exporters.

    `metadata` describes the artifact, for formats that can store it. `sizes` restricts free
    dimensions that cannot have any value. `classes` names the classes whose probabilities the first
    output has; it is empty where no output has any. `blocks` are paths of modules, for formats that
    can say of which one an operation is part. `program` and `traced` are computed on first use and
    shared between exporters.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    sizes: Mapping[str, SizeSteps] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()

    @cached_property
    def example(self) -> tuple[Tensor, ...]:
        """Inputs for tracing; a free batch is 2, since torch.export specialises 1."""
        generator = torch.Generator().manual_seed(0)
        examples = {name: steps.example for name, steps in self.sizes.items()}
        return tuple(_example(spec, examples, generator) for spec in self.inputs)

    @cached_property
    def dynamic_shapes(self) -> Any:
        """The `dynamic_shapes` argument of torch.export; None if no dimension is free."""
        free = {
            name: _dimension(name, self.sizes.get(name))
            for spec in self.inputs
            for name in spec.shape
            if isinstance(name, str)
        }
        shapes = tuple(
            {axis: free[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
            for spec in self.inputs
        )
        # torch.export treats `*inputs` as one argument.
        named = [
            parameter
            for parameter in inspect.signature(self.module.forward).parameters.values()
            if parameter.kind is not parameter.VAR_POSITIONAL
        ][: len(shapes)]
        if len(named) < len(shapes):
            return (*shapes[: len(named)], shapes[len(named) :]) if free else None
        return shapes if free else None

    @cached_property
    def program(self) -> ExportedProgram:
        """The core ATen graph of the module; UsageError where it needs one value of a dimension
        that shall be free."""
        try:
            with torch.no_grad():
                return torch.export.export(
                    self.module, self.example, dynamic_shapes=self.dynamic_shapes
                )
        except Exception as error:  # torch tells its kinds apart by text alone
            if fixed := FIXED.search(str(error)):
                raise UsageError(
                    f"{fixed[1]} cannot be dynamic: the model treats {fixed[2]} in a special way",
                    "leave --dynamic and --dynamic-size out, and export once for each size",
                ) from error
            raise

    @cached_property
    def traced(self) -> Any:
        """The TorchScript trace of the module, a `torch.jit.ScriptModule`."""
        with torch.no_grad():
            return torch.jit.trace(self.module, self.example, check_trace=False)

    def in_half(self) -> Capture:
        """The same model with float16 weights and arithmetic; inputs and outputs stay as they are.
        Pictures are normalised, and probabilities are computed, in float32."""
        return replace(self, module=_halved(self.module).eval())

    def of_planes(self) -> Capture:
        """The same model with the planes of its picture as input, float32 (B, 3, H, W)."""
        (picture,) = self.inputs
        batch, height, width, channels = picture.shape
        planes = TensorSpec(picture.name, (batch, channels, height, width))
        assert isinstance(self.module, Normalised)
        module = Normalised(self.module.model, self.module.pixels, takes_planes=True)
        return replace(self, module=module.eval(), inputs=(planes,))

    def of_probabilities(self) -> Capture:
        """The same classifier with the probabilities as its only output."""
        return replace(self, module=_without_scores(self.module).eval(), outputs=self.outputs[:1])


def zeros(
    spec: TensorSpec, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Zeros of a spec's shape with free dimensions of 1; `dtype` replaces float32 only."""
    shape = [1 if isinstance(size, str) else size for size in spec.shape]
    own: torch.dtype = getattr(torch, spec.dtype)
    return torch.zeros(shape, dtype=dtype if dtype and own is torch.float32 else own, device=device)


def _dimension(name: str, steps: SizeSteps | None) -> Any:
    if steps is None:
        return Dim(name, min=1)
    return Dim(name, min=2) if steps.step == 1 else steps.step * Dim(f"{name}_steps", min=2)


def _example(spec: TensorSpec, examples: Mapping[str, int], generator: torch.Generator) -> Tensor:
    shape = [examples.get(size, 2) if isinstance(size, str) else size for size in spec.shape]
    if spec.dtype == "float32":
        return torch.randn(shape, generator=generator)
    low, high = spec.value_range or (0, 1)
    dtype = getattr(torch, spec.dtype)
    values = torch.randint(low, high + 1, shape, generator=generator, dtype=dtype)
    values.view(-1)[-1] = high  # a range that the model does not take shows
    return values


class Normalised(nn.Module):
    """A model that takes a picture, uint8 (B, H, W, 3) in RGB, or its planes (B, 3, H, W).

    TorchScript files hold its name.
    """

    offset: Tensor
    factor: Tensor

    def __init__(self, module: nn.Module, pixels: Pixels, *, takes_planes: bool = False) -> None:
        super().__init__()
        self.model, self.pixels, self.takes_planes = module, pixels, takes_planes
        self.register_buffer("offset", torch.tensor(pixels.offset).view(1, -1, 1, 1))
        self.register_buffer("factor", torch.tensor(pixels.factor).view(1, -1, 1, 1))

    def around(self, module: nn.Module) -> Normalised:
        """The same preprocessing before another model."""
        return Normalised(module, self.pixels, takes_planes=self.takes_planes)

    def forward(self, picture: Tensor) -> Any:
        planes = picture if self.takes_planes else picture.permute(0, 3, 1, 2).float()
        values = (planes - self.offset) * self.factor
        if self.pixels.reverses:
            values = torch.cat([values[:, channel : channel + 1] for channel in (2, 1, 0)], dim=1)
        if self.pixels.channels_last:
            values = values.permute(0, 2, 3, 1)
        return self.model(values)


class Classifier(nn.Module):
    """A model that returns the probabilities of classes, and with `keeps_scores` the scores too.

    TorchScript files hold its name.
    """

    def __init__(self, module: nn.Module, *, keeps_scores: bool = False) -> None:
        super().__init__()
        self.model, self.keeps_scores = module, keeps_scores

    def around(self, module: nn.Module) -> Classifier:
        """The same after another model."""
        return Classifier(module, keeps_scores=self.keeps_scores)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        scores = self.model(*inputs)
        if not isinstance(scores, Tensor):
            (scores,) = scores
        probabilities = torch.softmax(scores, dim=1)
        return (probabilities, scores) if self.keeps_scores else probabilities


def _without_scores(module: nn.Module) -> nn.Module:
    if isinstance(module, Normalised):
        return module.around(_without_scores(module.model))
    assert isinstance(module, Classifier)
    return Classifier(module.model)


def _halved(module: nn.Module) -> nn.Module:
    """The module in float16, within what stays in float32."""
    if isinstance(module, Normalised | Classifier):
        return module.around(_halved(module.model))
    return HalfPrecision(module)


class HalfPrecision(nn.Module):
    """A model in float16 with float32 inputs and outputs. TorchScript files hold its name."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(module).half()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = self.model(
            *(value.half() if value.is_floating_point() else value for value in inputs)
        )
        if isinstance(outputs, Tensor):
            return outputs.float()
        return tuple(value.float() for value in outputs)
