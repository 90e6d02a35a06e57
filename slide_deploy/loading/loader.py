"""Load a checkpoint: recognise its family, build the model, and load every weight."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slide_deploy import __version__
from slide_deploy.capture import Capture
from slide_deploy.errors import ArchitectureError, CheckpointError, SlideDeployError, UsageError
from slide_deploy.fusion.branches import fuse, fused_skeleton
from slide_deploy.loading.checkpoint import Checkpoint, Source, State, read_checkpoint
from slide_deploy.models.families import families, family_named
from slide_deploy.models.family import Family, InferredConfig, block_names
from slide_deploy.models.features import features_only, stage_specs, unused_weights
from slide_deploy.packaging.preprocessing import Preprocessing, of_training_config
from slide_deploy.types import TensorSpec
from slide_deploy.utils.records import rebuild
from slide_deploy.utils.staging import staged
from slide_deploy.utils.text import first_line, first_names

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
) -> Model:
    """Load a checkpoint of any known format and family.

    `weights` selects "ema" or "model" if a file has both (default: "ema"). `image_size` is (height,
    width) in pixels, needed only if the file does not determine it. With `features` the outputs
    are the feature maps of the stages, `stage1` and so on. Raises CheckpointError and its
    subclasses; never executes code from the file.
    """
    checkpoint = read_checkpoint(Path(path))
    source, state = checkpoint.choose(weights)
    if "family" in checkpoint.metadata:
        family = family_named(checkpoint.metadata["family"])
    else:
        family = _family_of(checkpoint, state)
        state = {family.prefix + key: value for key, value in state.items()}
    with _sizes_of(checkpoint):
        inferred = (
            _from_metadata(checkpoint, family, image_size)
            if "family" in checkpoint.metadata
            else family.recognise(state, checkpoint.config, image_size)
        )
        module = family.build(inferred.config).eval()
        inputs = (family.input_spec(inferred.config),)
        outputs = family.output_specs(inferred.config)
    notes = inferred.notes

    fused = any(key.endswith(".shift.weight") for key in state)
    if fused:
        module = fused_skeleton(module)
        notes = (*notes, "the file contains only fused weights, so they are the reference")
    others = {str(v.dtype).removeprefix("torch.") for v in state.values() if v.is_floating_point()}
    if others := others - {"float32"}:
        notes = (*notes, f"weights stored as {', '.join(sorted(others))} are used as float32")
    spare: frozenset[str] = frozenset()
    if features:
        module = features_only(module, checkpoint.path_name)
        outputs, spare = stage_specs(module, inputs), unused_weights(module, inputs)
    _load_every_weight(checkpoint, family, module, state, spare, given_size=image_size is not None)
    return Model(
        name=Path(checkpoint.path_name).stem,
        source=source,
        kind=checkpoint.kind,
        family=family.name,
        config=inferred.config,
        module=module.requires_grad_(False),
        inputs=inputs,
        outputs=outputs,
        fused=fused,
        notes=notes,
        features=features,
        block_names=family.block_names,
        preprocessing=_preprocessing_of(checkpoint, inputs[0]),
    )


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


def _family_of(checkpoint: Checkpoint, state: State) -> Family:
    for family in families():
        if family.recognises(state):
            return family
    pair = any(key.endswith("dep_conv.weight") for key in state) and any(
        key.endswith("dep_conv1.weight") for key in state
    )
    if not pair:
        raise CheckpointError(
            f"{checkpoint.path_name} has no deformed-shift pair (dep_conv and dep_conv1)",
            "pass a Slide-Transformer, or a fused model as a file written by `slide-deploy fuse`",
        )
    raise CheckpointError(
        f"{checkpoint.path_name} has Slide Attention in a model of no known family",
        f"known families: {', '.join(family.name for family in families())}",
    )


def _from_metadata(
    checkpoint: Checkpoint, family: Family, image_size: tuple[int, int] | None
) -> InferredConfig:
    try:
        config: Any = rebuild(family.config_type, json.loads(checkpoint.metadata["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(
            f"{checkpoint.path_name}: its architecture metadata cannot be read ({error})",
            "write it again with `slide-deploy fuse`",
        ) from error
    return InferredConfig(replace(config, image_size=image_size) if image_size else config)


def _load_every_weight(
    checkpoint: Checkpoint,
    family: Family,
    module: nn.Module,
    state: State,
    spare: frozenset[str],
    *,
    given_size: bool,
) -> None:
    """Load strictly, except that `spare` weights may be missing. Buffers that the architecture
    determines may be missing, too, but must agree if they are present."""
    own = module.state_dict()
    derived = (*family.derived, *family.derived_from_size)
    where = f"{checkpoint.path_name} ({checkpoint.kind})"
    needed = [key for key in own if key not in spare and not key.endswith(derived)]
    if missing := [key for key in needed if key not in state]:
        raise ArchitectureError(
            f"{where} lacks {first_names(missing)}", "check that the state dict is complete"
        )
    extra = [key for key in state if key not in own and not key.endswith(derived)]
    if extra:
        raise ArchitectureError(
            f"{where} has keys that its architecture does not have: {first_names(extra)}",
            "check that the config belongs to these weights",
        )
    for key, value in state.items():
        expected = own.get(key)
        if given_size and key.endswith(family.derived_from_size):
            continue  # the model is built for the given size
        if (
            expected is None
            or expected.shape != value.shape
            or (key.endswith(derived) and not torch.equal(expected, value.to(expected.dtype)))
        ):
            has = "nothing" if expected is None else tuple(expected.shape)
            raise ArchitectureError(
                f"{where}: {key} is {tuple(value.shape)}, but its architecture has {has}",
                "pass --image-size HxW if the model was trained for another size or for images "
                "that are not square",
            )
    weights = {
        key: value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if not key.endswith(derived)
    }
    for key, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{where}: {key} has values outside the range of float32",
                "save the weights as float32",
            )
    module.load_state_dict(weights, strict=False)
