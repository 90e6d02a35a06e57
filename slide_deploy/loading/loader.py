"""Load a checkpoint: recognise its family, build the model, and load every weight."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from slide_deploy import __version__
from slide_deploy.capture import Capture
from slide_deploy.errors import ArchitectureError, SlideDeployError, UsageError
from slide_deploy.fusion.branches import fuse, fused_skeleton
from slide_deploy.loading.architecture import (
    check_fit,
    check_sizes,
    load_weights,
    shapes_of,
    without_stage_norms,
)
from slide_deploy.loading.checkpoint import Checkpoint, Source, read_checkpoint
from slide_deploy.loading.containers import State
from slide_deploy.loading.prefix import below, family_of
from slide_deploy.models.families import families, family_named
from slide_deploy.models.family import Family, InferredConfig, block_names
from slide_deploy.models.features import features_only, stage_specs, unused_weights
from slide_deploy.packaging.classifier import Conclusion, concluded
from slide_deploy.packaging.pictures import picture_spec
from slide_deploy.packaging.preprocessing import InputKind, Preprocessing, of_training_config
from slide_deploy.types import Loading, TensorSpec
from slide_deploy.utils.records import rebuild
from slide_deploy.utils.staging import staged
from slide_deploy.utils.text import first_line

__all__ = ["Finish", "Merge", "Model", "load", "save_fused"]

Merge = Callable[[nn.Module], nn.Module]
Finish = Callable[[Capture], nn.Module]


def _as_it_is(capture: Capture) -> nn.Module:
    return capture.module


@dataclass(frozen=True)
class Model:
    """A model read from a file, in float32 and eval mode.

    `module` is the unfused model, or the fused model if the file contains nothing else (`fused`).
    `notes` are assumptions. With `features` the outputs are the feature maps of the stages. `merge`
    returns a copy of an unfused model with its Slide Attentions fused; `finish` changes the lowered
    model before it is captured; `block_names` lists the modules among which a failure is located.
    `preprocessing` converts an image to the input, and `labels` names the classes, if known.
    `loading` tells how it was read; None for a module in memory.
    `conclusion` says whether artifacts give scores of classes or probabilities.
    """

    name: str
    source: Source
    kind: str
    family: str
    config: Any
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fused: bool
    notes: tuple[str, ...]
    features: bool = False
    merge: Merge = fuse
    finish: Finish = _as_it_is
    block_names: Callable[[nn.Module], list[str]] = block_names
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    loading: Loading | None = None
    conclusion: Conclusion = Conclusion.SCORES

    @property
    def contained_preprocessing(self) -> Preprocessing | None:
        """The preprocessing that its artifacts contain; None where they take normalised tensors."""
        way = self.preprocessing
        return way if way is not None and way.input is InputKind.IMAGE else None

    @property
    def artifact_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of its artifacts: a picture where these contain the preprocessing."""
        way = self.contained_preprocessing
        return self.inputs if way is None else tuple(picture_spec(s, way) for s in self.inputs)

    @property
    def artifact_outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs of its artifacts."""
        return concluded(self.conclusion, self.outputs)

    @property
    def merged(self) -> nn.Module:
        """The fused model."""
        return self.module if self.fused else self.merge(self.module)


def load(
    path: Path | str,
    *,
    weights: str | None = None,
    image_size: tuple[int, int] | None = None,
    features: bool = False,
    prefix: str | None = None,
    key: str | None = None,
) -> Model:
    """Load a checkpoint of any known format and family, or a Hugging Face folder.

    `weights` chooses "ema" or "model" where a file has both (default: the averaged ones);
    `image_size` is (height, width) in pixels, needed only where the file does not tell;
    `features` asks for the stages' maps as outputs, `stage1` and so on. `prefix` is what the
    names of the weights begin with (`backbone`), found by the names where there is only one;
    `key` says where in the file the weights are (`nets.student`). docs/checkpoints.md lists
    what is read. Raises CheckpointError and its kin; never executes code from the file.
    """
    checkpoint = read_checkpoint(Path(path), key)
    source, state = checkpoint.choose(weights)
    family, state, notes = _own_weights(checkpoint, state, prefix)
    fused = any(name.endswith(".shift.weight") for name in state)
    where = f"{checkpoint.path_name} ({checkpoint.kind})"
    spare: frozenset[str] = frozenset()
    with _sizes_of(checkpoint):
        inferred = _inferred(checkpoint, family, state, image_size)
        inputs = (family.input_spec(inferred.config),)
        outputs = family.output_specs(inferred.config)
        if image_size is None:
            check_sizes(where, inputs)
        build = partial(
            _built, family, inferred.config, checkpoint.path_name, fused=fused, features=features
        )
        shapes = shapes_of(build, state)
        if image_size is None:
            check_sizes(where, inputs, shapes)
        if features:
            outputs, spare = stage_specs(shapes, inputs), unused_weights(shapes, inputs)
            state, told = without_stage_norms(state, shapes)
            notes += told
        check_fit(where, family, shapes, state, spare, given_size=image_size is not None)
        module = build()
        load_weights(where, family, module, state, given_size=image_size is not None)
    return Model(
        name=checkpoint.name,
        source=source,
        kind=checkpoint.kind,
        family=family.name,
        config=inferred.config,
        module=module.requires_grad_(False),
        inputs=inputs,
        outputs=outputs,
        fused=fused,
        notes=(*checkpoint.notes, *notes, *inferred.notes, *_assumptions(state, fused=fused)),
        features=features,
        block_names=family.block_names,
        preprocessing=_preprocessing_of(checkpoint, inputs[0]),
        loading=Loading(weights, image_size, features, prefix, key),
    )


def _own_weights(
    checkpoint: Checkpoint, state: State, prefix: str | None
) -> tuple[Family, State, tuple[str, ...]]:
    """The family, its weights by the names that its module has, and notes on what is left out."""
    state, notes = below(checkpoint, state, prefix or "")
    if "family" in checkpoint.metadata:
        return family_named(checkpoint.metadata["family"]), state, notes
    family, found = family_of(checkpoint, state)
    state, told = below(checkpoint, state, found)
    return family, {family.prefix + key: v for key, v in state.items()}, (*notes, *told)


def _built(family: Family, config: Any, name: str, *, fused: bool, features: bool) -> nn.Module:
    module = family.build(config).eval()
    module = fused_skeleton(module) if fused else module
    return features_only(module, name) if features else module


def _assumptions(state: State, *, fused: bool) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if fused:
        notes += ("the file holds fused weights only: they are the reference",)
    others = {str(v.dtype).removeprefix("torch.") for v in state.values() if v.is_floating_point()}
    if others := others - {"float32"}:
        notes += (f"weights stored as {', '.join(sorted(others))} are used as float32",)
    return notes


def save_fused(model: Model, path: Path) -> None:
    """Write the fused weights as safetensors, with the architecture in its metadata.

    Each fused weight is the float64 sum, rounded once to float32. Raises UsageError for a custom
    model, which could not be built again from the file.
    """
    from safetensors.torch import save

    family = {family.name: family for family in families()}.get(model.family)
    if family is None:
        raise UsageError(
            f"{model.name} is of no known family, so its fused weights could not be loaded again",
            "export it instead; every artifact has the fused weights",
        )

    state = {
        key: value.contiguous()
        for key, value in model.merged.state_dict().items()
        if not key.endswith((*family.derived, *family.derived_from_size))
    }
    metadata = {
        "format": "pt",
        "family": model.family,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "weights": model.source.weights,
        "source": f"{model.source.path_name} sha256:{model.source.sha256}",
        "slide_deploy": __version__,
    }
    with staged(path) as scratch:
        # Not with safetensors' own writer, which reports a full disk as an error of its own.
        scratch.write_bytes(save(state, metadata))


def _preprocessing_of(checkpoint: Checkpoint, spec: TensorSpec) -> Preprocessing | None:
    if spec.shape[1:2] != (3,) or len(spec.shape) != 4:
        return None
    return of_training_config(checkpoint.config, (int(spec.shape[2]), int(spec.shape[3])))


@contextmanager
def _sizes_of(checkpoint: Checkpoint) -> Iterator[None]:
    """Translate any exception while reading or building, as wrong sizes in a file may cause."""
    try:
        yield
    except SlideDeployError:
        raise
    except Exception as error:
        raise ArchitectureError(
            f"{checkpoint.path_name} has invalid sizes ({first_line(error)})",
            "check that the config belongs to these weights, and that the state dict is complete",
        ) from error


def _inferred(
    checkpoint: Checkpoint, family: Family, state: State, image_size: tuple[int, int] | None
) -> InferredConfig:
    if "family" not in checkpoint.metadata:
        return family.recognise(state, checkpoint.config, image_size)
    try:
        config: Any = rebuild(family.config_type, json.loads(checkpoint.metadata["config"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArchitectureError(
            f"{checkpoint.path_name}: its architecture metadata cannot be read "
            f"({first_line(error)})",
            "write it again with `slide-deploy fuse`",
        ) from error
    return InferredConfig(replace(config, image_size=image_size) if image_size else config)
